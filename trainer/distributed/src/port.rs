//! A port for processes of this host to meet at.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Systems take the local ports of outgoing connections from above these (Linux from 32768, others from 49152), so that no
/// connection that begins in between takes the port away again.
const PORTS: Range<u32> = 20_000..32_768;
/// How far apart two processes begin to look, so that they seldom find the same.
const STRIDE: u32 = 97;

/// A port of 127.0.0.1 at which nobody listens: another one at each call.
///
/// # Errors
/// Where every port is taken, or none may be listened at.
pub fn free_port() -> io::Result<u16> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(STRIDE);
    for _ in PORTS {
        let number = first.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        let port = (PORTS.start + number) as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            // Some systems keep ports for themselves.
            Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        ErrorKind::AddrInUse,
        format!("all ports from {} to {} are taken", PORTS.start, PORTS.end - 1),
    ))
}
