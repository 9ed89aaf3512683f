"""The kernel's side: decode a request, make one call, encode the answer.  No ideas live here."""
