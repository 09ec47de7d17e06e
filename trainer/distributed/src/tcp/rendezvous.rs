//! How processes find each other: all come to rank 0 with who they are and where they listen; it hands out the list once
//! all are there, and each connects to the next.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Options;
use super::frame::{Frame, Kind};
use super::link::Link;
use crate::environment::Place;
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"TALLOWDP";
/// Of what processes say to each other; raised with every change.
const VERSION: u32 = 1;
const HELLO: usize = 8 + 4 + 8 + 8 + 32 + 2;
/// How long a stranger at the port may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

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

/// Who comes to rank 0.
struct Hello {
    rank: usize,
    world_size: usize,
    fingerprint: [u8; 32],
    /// Where it listens for the rank before it.
    port: u16,
}

impl Hello {
    fn bytes(&self) -> Vec<u8> {
        let numbers = [self.world_size as u64, self.rank as u64].map(u64::to_le_bytes).concat();
        let parts =
            [&MAGIC[..], &VERSION.to_le_bytes(), &numbers, &self.fingerprint, &self.port.to_le_bytes()];
        parts.concat()
    }

    /// `None` for a stranger; the version where it is another one.
    fn read(bytes: &[u8; HELLO]) -> Option<Result<Self, u32>> {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])) as usize;
        if bytes[..8] != MAGIC {
            return None;
        }
        let version = u32::from_le_bytes(std::array::from_fn(|i| bytes[8 + i]));
        if version != VERSION {
            return Some(Err(version));
        }
        let fingerprint = std::array::from_fn(|i| bytes[28 + i]);
        let port = u16::from_le_bytes([bytes[60], bytes[61]]);
        Some(Ok(Self { world_size: number(12), rank: number(20), fingerprint, port }))
    }
}

/// The other processes, found.
struct Table {
    /// Sent with every connection of the ring, so that one of another run is told.
    token: [u8; 16],
    /// Where each rank listens.
    addresses: Vec<SocketAddr>,
}

/// A meeting with a deadline.
struct Meeting<'a> {
    place: &'a Place,
    options: &'a Options,
    deadline: Instant,
}

/// Connects this process with the ranks before and after it, as often as there are channels.
pub(super) fn meet(place: &Place, options: &Options) -> Result<Vec<Link>> {
    let meeting = Meeting { place, options, deadline: Instant::now() + options.timeout };
    let master = meeting.resolve()?;
    let local = listening(&place.master, master);
    let listener =
        TcpListener::bind((local, 0)).map_err(|error| meeting.failed(format!("cannot listen: {error}")))?;
    let port = listener.local_addr().map_err(|error| meeting.failed(error.to_string()))?.port();
    let table = match place.rank {
        0 => meeting.host(master, local, port)?,
        _ => meeting.join(master, port)?,
    };
    meeting.connect(&table, &listener)
}

impl Meeting<'_> {
    fn failed(&self, problem: impl Into<String>) -> Error {
        let Place { rank, master, ports, .. } = self.place;
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        Error::Rendezvous {
            rank: *rank,
            address: format!("{master}:{}", ports.join("/")),
            problem: problem.into(),
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
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

    /// Rank 0: waits for all the others and tells each where all are.
    fn host(&self, master: IpAddr, local: IpAddr, port: u16) -> Result<Table> {
        let listener = bind(local, &self.place.ports).map_err(|error| {
            self.failed(format!("cannot listen there: {error}; set MASTER_PORT to a port that is free"))
        })?;
        let mut streams: Vec<Option<(TcpStream, SocketAddr)>> =
            (0..self.place.world_size).map(|_| None).collect();
        let mut missing = self.place.world_size - 1;
        while missing > 0 {
            let Some(stream) = self.accept(&listener)? else {
                let names = streams.iter().enumerate().skip(1).filter(|(_, stream)| stream.is_none());
                let names: Vec<String> = names.map(|(rank, _)| rank.to_string()).collect();
                let seconds = self.options.timeout.as_secs();
                return Err(self.failed(format!(
                    "rank {} did not come within {seconds} s: see what its output says, and that \
                     MASTER_ADDR, MASTER_PORT and WORLD_SIZE are the same everywhere",
                    names.join(", ")
                )));
            };
            match self.welcome(stream, &streams) {
                Ok(Some((rank, stream, address))) => {
                    streams[rank] = Some((stream, address));
                    missing -= 1;
                }
                Ok(None) => {}
                Err(error) => {
                    let refusal = Frame::abort(0, &error.to_string());
                    // Whether or not they hear of it, the run cannot begin.
                    streams.iter_mut().flatten().for_each(|(stream, _)| drop(refusal.write(stream)));
                    return Err(error);
                }
            }
        }
        let token = token();
        let mut addresses = vec![SocketAddr::new(master, port)];
        addresses.extend(streams.iter().flatten().map(|(_, address)| *address));
        for (rank, slot) in streams.iter_mut().enumerate() {
            let Some((stream, _)) = slot else { continue };
            let text = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
            let bytes = [&token[..], text.as_bytes()].concat();
            let told = Frame { kind: Kind::Data, number: 0, bytes }.write(stream);
            told.map_err(|error| Error::Gone { rank: 0, peer: rank, problem: error.to_string() })?;
        }
        Ok(Table { token, addresses })
    }

    /// Takes in who has come: one of this run, a stranger (`None`), or one that shows that the settings differ.
    fn welcome(
        &self,
        mut stream: TcpStream,
        known: &[Option<(TcpStream, SocketAddr)>],
    ) -> Result<Option<(usize, TcpStream, SocketAddr)>> {
        let mut bytes = [0; HELLO];
        let Ok(address) = stream.peer_addr() else { return Ok(None) };
        let timed = stream.set_read_timeout(Some(HANDSHAKE.min(self.left().max(PAUSE))));
        if timed.and_then(|()| stream.read_exact(&mut bytes)).is_err() {
            return Ok(None);
        }
        let Some(hello) = Hello::read(&bytes) else { return Ok(None) };
        let problem = match &hello {
            Err(version) => Some(format!("speaks version {version} of the protocol, this one {VERSION}: use the same tallow")),
            Ok(hello) if hello.world_size != self.place.world_size => {
                Some(format!("has WORLD_SIZE = {}, rank 0 has {}", hello.world_size, self.place.world_size))
            }
            Ok(hello) if hello.fingerprint != self.options.fingerprint => {
                Some("trains with other settings, data or another version of tallow than rank 0: start all with the same".into())
            }
            Ok(hello) if known.get(hello.rank).is_none_or(Option::is_some) || hello.rank == 0 => {
                Some(format!("has RANK = {}, as another process has", hello.rank))
            }
            Ok(_) => None,
        };
        match (hello, problem) {
            (Ok(Hello { rank, port, .. }), None) => {
                let taken_in = Frame { kind: Kind::Data, number: 0, bytes: vec![] }.write(&mut stream);
                Ok(taken_in.is_ok().then(|| (rank, stream, SocketAddr::new(address.ip(), port))))
            }
            (_, problem) => {
                let problem = format!("the process from {} {}", address.ip(), problem.unwrap_or_default());
                let _ = Frame::abort(0, &problem).write(&mut stream);
                Err(self.failed(problem))
            }
        }
    }

    /// A connection, or `None` where the time is up.
    fn accept(&self, listener: &TcpListener) -> Result<Option<TcpStream>> {
        let failed = |error: std::io::Error| self.failed(format!("cannot take connections: {error}"));
        listener.set_nonblocking(true).map_err(failed)?;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(failed)?;
                    return Ok(Some(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(failed(error)),
            }
            if self.left().is_zero() {
                return Ok(None);
            }
            std::thread::sleep(PAUSE.min(self.left()));
        }
    }

    /// Any other rank: comes to rank 0 as soon as that listens.
    fn join(&self, master: IpAddr, port: u16) -> Result<Table> {
        let Place { rank, world_size, ports, .. } = self.place;
        let fingerprint = self.options.fingerprint;
        let hello = Hello { rank: *rank, world_size: *world_size, fingerprint, port }.bytes();
        let mut ports = ports.iter().cycle();
        let mut problem = String::from("nobody listens there");
        loop {
            let Some(&port) = ports.next().filter(|_| !self.left().is_zero()) else {
                let seconds = self.options.timeout.as_secs();
                return Err(self.failed(format!(
                    "{problem} within {seconds} s: see what the output of rank 0 says, and that MASTER_ADDR and \
                     MASTER_PORT are the same everywhere"
                )));
            };
            let mut stream = match self.introduce(SocketAddr::new(master, port), &hello) {
                Ok((stream, Frame { kind: Kind::Data, .. })) => stream,
                Ok((_, refusal)) => return Err(self.failed(refusal.reason().1)),
                Err(error) => {
                    problem = error.to_string();
                    std::thread::sleep(PAUSE);
                    continue;
                }
            };
            // Taken in: now all the others have to come.
            let timed = stream.set_read_timeout(Some(self.left().max(PAUSE)));
            return match timed.and_then(|()| Frame::read(&mut stream)) {
                Ok(frame) if frame.kind == Kind::Abort => Err(self.failed(frame.reason().1)),
                Ok(frame) => self.table(&frame.bytes, master),
                Err(error) => Err(self
                    .failed(format!("rank 0 ended before all had come ({error}): see what its output says"))),
            };
        }
    }

    /// Says hello at an address, and is taken in or told why not.
    fn introduce(&self, address: SocketAddr, hello: &[u8]) -> std::io::Result<(TcpStream, Frame)> {
        let mut stream = TcpStream::connect_timeout(&address, HANDSHAKE.min(self.left().max(PAUSE)))?;
        stream.write_all(hello)?;
        // Where there are several ports, a stranger's may be silent.
        let patience = if self.place.ports.len() > 1 { 2 * HANDSHAKE } else { self.left() };
        stream.set_read_timeout(Some(patience.max(PAUSE)))?;
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
    fn connect(&self, table: &Table, listener: &TcpListener) -> Result<Vec<Link>> {
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
        while incoming.iter().any(Option::is_none) {
            let Some(mut stream) = self.accept(listener)? else {
                let seconds = self.options.timeout.as_secs();
                return Err(Error::Timeout { rank, peer: before, seconds });
            };
            let mut bytes = [0; 16 + 8 + 8];
            let timed = stream.set_read_timeout(Some(HANDSHAKE));
            if timed.and_then(|()| stream.read_exact(&mut bytes)).is_err() {
                continue;
            }
            let channel =
                (0..self.options.channels).find(|&channel| greeting(table, before, channel) == bytes);
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

/// What a rank says to the next as it connects a channel.
fn greeting(table: &Table, rank: usize, channel: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&table.token);
    bytes[16..24].copy_from_slice(&(rank as u64).to_le_bytes());
    bytes[24..].copy_from_slice(&(channel as u64).to_le_bytes());
    bytes
}

/// Tells one meeting from another; no secret.
fn token() -> [u8; 16] {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let mut token = [0; 16];
    token[..8].copy_from_slice(&time.to_le_bytes());
    token[8..].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
    token
}

/// The first of the ports that is free.
fn bind(local: IpAddr, ports: &[u16]) -> std::io::Result<TcpListener> {
    let mut bound = Err(ErrorKind::AddrNotAvailable.into());
    for &port in ports {
        bound = TcpListener::bind((local, port));
        if bound.is_ok() {
            break;
        }
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let options = Options { fingerprint: [0; 32], timeout: Duration::from_secs(1), channels: 1 };
        let meeting = Meeting { place: &place, options: &options, deadline: Instant::now() };
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
