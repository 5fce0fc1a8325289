"""How a text is made: headings, paragraphs, lists, tables, code; one module a family of formats."""
