"""Images, the collections they belong to, and who may see them."""
