"""HTTP/1.1 as bytes: heads of answers, framing of bodies. No sockets, and no opinion of what a message means."""
