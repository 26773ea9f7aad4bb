//! One SSH connection: resolve a target, dial, check the host key, authenticate, jump.
