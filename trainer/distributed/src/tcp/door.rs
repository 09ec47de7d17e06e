//! A port at which callers say who they are. All are listened to at once, so that one who is silent keeps nobody waiting.

use std::io::{ErrorKind, Read, Result};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long a caller may take to say who it is.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long what a caller says is, as far as its beginning tells; `None` where it is a stranger's.
pub(super) type Length = fn(&[u8]) -> Option<usize>;

pub(super) struct Door {
    listener: TcpListener,
    length: Length,
    callers: Vec<Caller>,
}

/// One that has not said all yet.
struct Caller {
    stream: TcpStream,
    since: Instant,
    bytes: Vec<u8>,
}

/// How far a caller has come.
enum Said {
    Part,
    Whole,
    Nonsense,
}

impl Door {
    pub fn open(listener: TcpListener, length: Length) -> Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, length, callers: vec![] })
    }

    /// One that has said all, and what it said; `None` where there is none at this moment. Strangers are dropped.
    pub fn caller(&mut self) -> Result<Option<(TcpStream, Vec<u8>)>> {
        self.accept()?;
        let mut index = 0;
        while let Some(caller) = self.callers.get_mut(index) {
            match caller.listen(self.length) {
                Said::Part => index += 1,
                Said::Nonsense => drop(self.callers.remove(index)),
                Said::Whole => {
                    let Caller { stream, bytes, .. } = self.callers.remove(index);
                    stream.set_nonblocking(false)?;
                    return Ok(Some((stream, bytes)));
                }
            }
        }
        Ok(None)
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    self.callers.push(Caller { stream, since: Instant::now(), bytes: vec![] });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Caller {
    /// Takes what has come, and no more than its words.
    fn listen(&mut self, length: Length) -> Said {
        loop {
            let heard = self.bytes.len();
            let Some(length) = length(&self.bytes) else { return Said::Nonsense };
            if heard >= length {
                return Said::Whole;
            }
            self.bytes.resize(length, 0);
            let read = self.stream.read(&mut self.bytes[heard..]);
            self.bytes.truncate(heard + read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Said::Nonsense,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.since.elapsed() < HANDSHAKE => {
                    return Said::Part;
                }
                Err(_) => return Said::Nonsense,
            }
        }
    }
}
