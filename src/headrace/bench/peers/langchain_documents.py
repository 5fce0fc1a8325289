"""LangChain's indexing API: a record manager, incremental cleanup, and a vector store in memory.

A revision is indexed in one batch, as its documentation advises: a document that spans batches is cleaned up too early
and embedded again. A deleted document is not part of that API: what it had is deleted by the record manager's own list.
"""

from __future__ import annotations

import sys

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

from headrace.bench.peers.replay import CHUNK, OVERLAP, Account, revisions


class Counted(Embeddings):
    """The replay's embedder."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._account.embed(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._account.embed([text])[0]


def main(path: str, limit: str) -> None:
    splitter = RecursiveCharacterTextSplitter(chunk_size=CHUNK, chunk_overlap=OVERLAP)
    account = Account(splitter.split_text)
    store = InMemoryVectorStore(Counted(account))
    records = InMemoryRecordManager("replay")
    records.create_schema()
    for revision in account.replay(revisions(path, limit)):
        if revision.text is None:
            if keys := records.list_keys(group_ids=[revision.document]):
                store.delete(keys)
                records.delete_keys(keys)
            continue
        document = Document(page_content=revision.text, metadata={"source": revision.document})
        chunks = splitter.split_documents([document])
        index(
            chunks,
            records,
            store,
            cleanup="incremental",
            source_id_key="source",
            batch_size=max(len(chunks), 1),
            key_encoder="blake2b",
        )
    account.say((held["metadata"]["source"], held["text"]) for held in store.store.values())


if __name__ == "__main__":
    main(*sys.argv[1:])
