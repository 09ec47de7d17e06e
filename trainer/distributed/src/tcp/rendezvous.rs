//! How processes find each other: all come to rank 0 with who they are and where they listen; it hands out the list once
//! all are there, and each connects to the next.

use std::cell::Cell;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::Options;
use super::door::{Door, HANDSHAKE};
use super::frame::{Frame, Kind};
use super::hello::Hello;
use super::link::Link;
use crate::environment::Place;
use crate::error::{Error, Result};

pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// Where to listen: on this host alone where all processes are said to be on it. A host's own name may mean its loopback
/// address to it, and another one to others.
fn listening(name: &str, master: IpAddr) -> IpAddr {
    let on_this_host = name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match master {
        _ if on_this_host => master,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The other processes, found.
pub(super) struct Table {
    /// Sent with every connection of the ring, so that one of another run is told.
    pub token: [u8; 16],
    /// Where each rank listens.
    pub addresses: Vec<SocketAddr>,
}

/// A meeting with a deadline.
pub(super) struct Meeting<'a> {
    pub place: &'a Place,
    pub options: &'a Options,
    begun: Instant,
    /// Whether it was said that this process waits.
    noticed: Cell<bool>,
}

/// Connects this process with the ranks before and after it, as often as there are channels.
pub(super) fn meet(place: &Place, options: &Options) -> Result<Vec<Link>> {
    let meeting = Meeting::new(place, options);
    let master = meeting.resolve()?;
    let local = listening(&place.master, master);
    let listener =
        TcpListener::bind((local, 0)).map_err(|error| meeting.failed(format!("cannot listen: {error}")))?;
    let port = listener.local_addr().map_err(|error| meeting.failed(error.to_string()))?.port();
    let table = match place.rank {
        0 => meeting.host(master, local, port)?,
        _ => meeting.join(master, port)?,
    };
    meeting.connect(&table, listener)
}

impl<'a> Meeting<'a> {
    fn new(place: &'a Place, options: &'a Options) -> Self {
        Self { place, options, begun: Instant::now(), noticed: Cell::new(false) }
    }

    /// Where the processes meet.
    pub fn address(&self) -> String {
        let ports: Vec<String> = self.place.ports.iter().map(u16::to_string).collect();
        format!("{}:{}", self.place.master, ports.join("/"))
    }

    pub fn failed(&self, problem: impl Into<String>) -> Error {
        Error::Rendezvous { rank: self.place.rank, address: self.address(), problem: problem.into() }
    }

    pub fn left(&self) -> Duration {
        self.options.timeout.saturating_sub(self.begun.elapsed())
    }

    /// Says once what this process waits for, where it has done so for a while.
    pub fn waits(&self, text: impl FnOnce() -> String) {
        if self.begun.elapsed() >= self.options.notice_after && !self.noticed.replace(true) {
            (self.options.notice)(&text());
        }
    }

    /// The next that says at a door who it is; `None` where the time is up. Meanwhile `wait` says what is waited for.
    pub fn next(&self, door: &mut Door, wait: impl Fn() -> String) -> Result<Option<(TcpStream, Vec<u8>)>> {
        loop {
            let caller = door.caller();
            match caller.map_err(|error| self.failed(format!("cannot take connections: {error}")))? {
                Some(caller) => return Ok(Some(caller)),
                None if self.left().is_zero() => return Ok(None),
                None => {
                    self.waits(&wait);
                    std::thread::sleep(PAUSE.min(self.left()));
                }
            }
        }
    }

    fn resolve(&self) -> Result<IpAddr> {
        let remedy = "MASTER_ADDR must be the host of rank 0";
        let found = (self.place.master.as_str(), 0).to_socket_addrs();
        let found =
            found.map_err(|error| self.failed(format!("its host is not known ({error}): {remedy}")))?;
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        // Where a name has both, all hosts take the same.
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses.first().copied().ok_or_else(|| self.failed(format!("its host has no address: {remedy}")))
    }

    /// Any other rank: comes to rank 0 as soon as that listens.
    fn join(&self, master: IpAddr, port: u16) -> Result<Table> {
        let Place { rank, world_size, ports, .. } = self.place;
        let identity = self.options.identity.clone();
        let hello = Hello { rank: *rank, world_size: *world_size, port, identity }.bytes();
        let seconds = self.options.timeout.as_secs();
        let mut ports = ports.iter().cycle();
        let mut problem = String::from("nobody listens there");
        loop {
            let Some(&port) = ports.next().filter(|_| !self.left().is_zero()) else {
                return Err(self.failed(format!(
                    "it was not found within {seconds} s ({problem}): see what the output of rank 0 says, and that \
                     MASTER_ADDR and MASTER_PORT are the same everywhere"
                )));
            };
            let mut stream = match self.introduce(SocketAddr::new(master, port), &hello) {
                Ok((stream, Frame { kind: Kind::Data, .. })) => stream,
                Ok((_, refusal)) => return Err(self.failed(refusal.reason().1)),
                Err(error) => {
                    problem = explained(&error);
                    self.waits(|| format!("rank {rank} looks for rank 0 at {}: {problem}", self.address()));
                    std::thread::sleep(PAUSE);
                    continue;
                }
            };
            // Taken in: now all the others have to come.
            let timed = stream.set_read_timeout(Some(self.left().max(PAUSE)));
            return match timed.and_then(|()| Frame::read(&mut stream)) {
                Ok(frame) if frame.kind == Kind::Abort => Err(self.failed(frame.reason().1)),
                Ok(frame) => self.table(&frame.bytes, master),
                Err(error) if is_timeout(&error) => Err(self.failed(format!(
                    "rank 0 was found, but not all had come within {seconds} s: its output says who is missing"
                ))),
                Err(_) => Err(self.failed("rank 0 ended before all had come: see what its output says")),
            };
        }
    }

    /// Says hello at an address, and is taken in or told why not.
    fn introduce(&self, address: SocketAddr, hello: &[u8]) -> std::io::Result<(TcpStream, Frame)> {
        let mut stream = TcpStream::connect_timeout(&address, HANDSHAKE.min(self.left().max(PAUSE)))?;
        stream.write_all(hello)?;
        // Rank 0 answers at once; what is silent may be a stranger.
        stream.set_read_timeout(Some((2 * HANDSHAKE).min(self.left().max(PAUSE))))?;
        let answer = Frame::read(&mut stream)?;
        Ok((stream, answer))
    }

    /// What rank 0 says of where the others are. Those that it sees on its own host are where this process finds it.
    fn table(&self, bytes: &[u8], master: IpAddr) -> Result<Table> {
        let invalid = || self.failed("rank 0 said something else than where the others are");
        let (token, text) = bytes.split_at_checked(16).ok_or_else(invalid)?;
        let text = std::str::from_utf8(text).map_err(|_| invalid())?;
        let addresses: Result<Vec<SocketAddr>, _> = text.split(' ').map(str::parse).collect();
        let mut addresses = addresses.map_err(|_| invalid())?;
        addresses.iter_mut().filter(|a| a.ip().is_loopback()).for_each(|a| a.set_ip(master));
        if addresses.len() != self.place.world_size {
            return Err(invalid());
        }
        Ok(Table { token: token.try_into().map_err(|_| invalid())?, addresses })
    }

    /// The ring: every rank connects to the next, then takes in the rank before.
    fn connect(&self, table: &Table, listener: TcpListener) -> Result<Vec<Link>> {
        let Place { rank, world_size, .. } = *self.place;
        let (after, before) = ((rank + 1) % world_size, (rank + world_size - 1) % world_size);
        let gone = |peer| move |error: std::io::Error| Error::Gone { rank, peer, problem: error.to_string() };
        let mut outgoing = vec![];
        for channel in 0..self.options.channels {
            let stream = TcpStream::connect_timeout(&table.addresses[after], self.left().max(PAUSE));
            let mut stream = stream.map_err(gone(after))?;
            stream.write_all(&greeting(table, rank, channel)).map_err(gone(after))?;
            outgoing.push(stream);
        }
        let mut incoming: Vec<Option<TcpStream>> = (0..self.options.channels).map(|_| None).collect();
        let door = Door::open(listener, |_| Some(GREETING));
        let mut door = door.map_err(|error| self.failed(format!("cannot listen: {error}")))?;
        while incoming.iter().any(Option::is_none) {
            let waits = || format!("rank {rank} waits for rank {before}");
            let Some((stream, bytes)) = self.next(&mut door, waits)? else {
                let seconds = self.options.timeout.as_secs();
                return Err(Error::Timeout { rank, peer: before, seconds });
            };
            let channel =
                (0..self.options.channels).find(|&channel| greeting(table, before, channel)[..] == bytes);
            if let Some(channel) = channel {
                incoming[channel] = Some(stream);
            }
        }
        let pairs = outgoing.into_iter().zip(incoming.into_iter().flatten());
        pairs
            .map(|(next, previous)| Link::new((rank, world_size), next, previous, self.options.timeout))
            .collect()
    }
}

const GREETING: usize = 16 + 8 + 8;

/// What a rank says to the next as it connects a channel.
fn greeting(table: &Table, rank: usize, channel: usize) -> [u8; GREETING] {
    let mut bytes = [0; GREETING];
    bytes[..16].copy_from_slice(&table.token);
    bytes[16..24].copy_from_slice(&(rank as u64).to_le_bytes());
    bytes[24..].copy_from_slice(&(channel as u64).to_le_bytes());
    bytes
}

/// What it means that rank 0 did not answer at an address.
fn explained(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "nobody listens there".into(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer comes from there".into(),
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
            "another program listens there".into()
        }
        _ => error.to_string(),
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn what_is_local_to_rank_0_is_found_on_its_host_by_others() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(listening("localhost", ip("127.0.0.1")), ip("127.0.0.1"));
        assert_eq!(listening("127.0.0.1", ip("127.0.0.1")), ip("127.0.0.1"));
        // Debian lets a host's own name mean 127.0.1.1.
        assert_eq!(listening("gpu07", ip("127.0.1.1")), ip("0.0.0.0"));
        assert_eq!(listening("fd00::7", ip("fd00::7")), ip("::"));
        let (rank, world_size) = (3, 4);
        let (master, ports) = ("gpu07".into(), vec![1]);
        let place = Place { rank, local_rank: 1, world_size, local_world_size: 2, master, ports };
        let options = Options::new(Identity::default(), 1).unwrap();
        let meeting = Meeting::new(&place, &options);
        let bytes = [&[9; 16][..], b"127.0.1.1:5 10.0.0.2:6 127.0.0.1:7 10.0.0.2:8"].concat();
        let table = meeting.table(&bytes, ip("10.0.0.1")).unwrap();
        let addresses: Vec<String> = table.addresses.iter().map(SocketAddr::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1:5", "10.0.0.2:6", "10.0.0.1:7", "10.0.0.2:8"]);
        assert_eq!(table.token, [9; 16]);
        for bytes in [&bytes[..10], &bytes[..30], &b"0123456789012345here there and nowhere"[..]] {
            assert!(meeting.table(bytes, ip("10.0.0.1")).is_err());
        }
    }
}
