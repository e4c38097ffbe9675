//! The folder of a distribution point on this machine: who works on its library.
//!
//! A library is open in one process at a time, so a command on the folder of a point that runs asks
//! that point, over the socket in the folder.

use crate::exit::Failure;
use dp::node::{SOCKET, ShortPath};
use std::{io, os::unix::net::UnixStream, path::Path};

/// A way to the point that runs in `folder`; nothing if none does.
pub fn running(folder: &Path) -> Result<Option<ShortPath>, Failure> {
    let socket = ShortPath::to(&folder.join(SOCKET))?;
    match UnixStream::connect(socket.path()) {
        Ok(_) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let who = "run this as the user that the distribution point runs as";
            Err(Failure::failed(format!("cannot reach the distribution point: {error}; {who}")))
        }
        // Nobody listens on what a killed process left.
        Err(_) => Ok(None),
    }
}
