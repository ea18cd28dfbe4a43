"""What goes over a network, byte by byte. Pure: bytes in, bytes out."""
