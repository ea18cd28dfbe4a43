"""Bytes that cross a network: encoding and decoding, pure. Whatever is decoded here was written by a stranger."""
