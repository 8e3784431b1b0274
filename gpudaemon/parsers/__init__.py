"""The kernel's formats that several subjects share: bytes in, values out, nothing but Malformed raised."""
