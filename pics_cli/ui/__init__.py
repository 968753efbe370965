"""The page of `pics ui`: a server of this machine, a queue with one warm model, and the page itself in `static`."""
