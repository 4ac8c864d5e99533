"""A small shop: orders, mails and an assistant, as LangGraph graphs."""
