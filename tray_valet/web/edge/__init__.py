"""What both APIs share: the servers, the guard before them, and how requests come in and answers go out."""
