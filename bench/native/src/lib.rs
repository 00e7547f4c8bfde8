//! The same driver as a Linux process: over vhost-user, and over devices inside the process.
