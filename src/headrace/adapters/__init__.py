"""What other frameworks take a collection, a context, a view or a memory as: their own retrievers, tools and histories.

Nothing here is imported by the rest: `headrace.adapters.langchain` and `headrace.adapters.llamaindex` each need their
framework's core package, which the extra of that name brings.
"""
