"""LlamaIndex's ingestion pipeline: a document store that upserts, and a vector store in memory.

It compares whole documents: one that changed is taken out and embedded anew. Its cache is left out, since it holds the
results of whole documents too, and all of them for ever. A deleted document is deleted from both stores.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from pydantic import PrivateAttr

from headrace.bench.peers.replay import Account, revisions

_TOKEN = re.compile(r"\w{1,6}|[^\w\s]")


class Counted(BaseEmbedding):
    """The replay's embedder."""

    _account: Account = PrivateAttr()

    def __init__(self, account: Account) -> None:
        super().__init__(model_name="replay", embed_batch_size=1_000)
        self._account = account

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._account.embed([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._account.embed(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._account.embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._account.embed([query])[0]


class Store(SimpleVectorStore):
    """The store in memory, which keeps no texts; they are kept beside it, to be compared."""

    _texts: dict[str, tuple[str, str]] = PrivateAttr(default_factory=dict)

    def add(self, nodes: Any, **more: Any) -> list[str]:
        self._texts.update((node.node_id, (node.ref_doc_id, node.get_content())) for node in nodes)
        added: list[str] = super().add(nodes, **more)
        return added

    def held(self) -> list[tuple[str, str]]:
        return [self._texts[key] for key in self.data.embedding_dict]


def main(path: str, limit: str) -> None:
    splitter = SentenceSplitter(chunk_size=256, chunk_overlap=32, tokenizer=_TOKEN.findall)
    account = Account(lambda text: [node.get_content() for node in splitter([Document(text=text)])])
    store, documents = Store(), SimpleDocumentStore()
    pipeline = IngestionPipeline(
        transformations=[splitter, Counted(account)],
        docstore=documents,
        vector_store=store,
        docstore_strategy=DocstoreStrategy.UPSERTS,
        disable_cache=True,
    )
    for revision in account.replay(revisions(path, limit)):
        if revision.text is None:
            documents.delete_document(revision.document, raise_error=False)
            store.delete(revision.document)
        else:
            pipeline.run(documents=[Document(text=revision.text, id_=revision.document)])
    account.say(store.held())


if __name__ == "__main__":
    main(*sys.argv[1:])
