//! Runs the tunnels: listeners, sessions, and the server end of the control socket.
