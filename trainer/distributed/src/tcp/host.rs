//! Rank 0's part in a rendezvous: it takes in all the others and tells each where all are.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::door::Door;
use super::frame::{Frame, Kind};
use super::hello::{Hello, VERSION};
use super::rendezvous::{Meeting, Table};
use crate::error::{Error, Result};

/// How long rank 0 waits for one that it refuses to have read why.
const FAREWELL: Duration = Duration::from_millis(200);
/// As much as it may still be sending.
const MOST_UNREAD: u64 = 1 << 20;

/// Who has been taken in, by rank: the way to it, and where it listens.
type Guests = Vec<Option<(TcpStream, SocketAddr)>>;

impl Meeting<'_> {
    /// Waits for all the others and tells each where all are; this one is found at `port`.
    pub fn host(&self, master: IpAddr, local: IpAddr, port: u16) -> Result<Table> {
        let door = bind(local, &self.place.ports).and_then(|listener| Door::open(listener, Hello::length));
        let mut door = door.map_err(|error| {
            self.failed(format!("cannot listen there: {error}; set MASTER_PORT to a port that is free"))
        })?;
        let world_size = self.place.world_size;
        let mut guests: Guests = (0..world_size).map(|_| None).collect();
        while !guests.iter().skip(1).all(is_here) {
            let waits =
                || format!("rank 0 waits at {} for {} (of {world_size})", self.address(), missing(&guests));
            let Some((stream, bytes)) = self.next(&mut door, waits)? else {
                let seconds = self.options.timeout.as_secs();
                return Err(self.failed(format!(
                    "{} did not come within {seconds} s, or left again: see what its output says, and that \
                     MASTER_ADDR, MASTER_PORT and WORLD_SIZE are the same everywhere",
                    missing(&guests)
                )));
            };
            if let Err(problem) = self.welcome(stream, &bytes, &mut guests) {
                // Whether or not they hear of it, the run cannot begin.
                guests.into_iter().flatten().for_each(|(stream, _)| refuse(stream, &problem));
                return Err(self.failed(problem));
            }
        }
        let token = token();
        let mut addresses = vec![SocketAddr::new(master, port)];
        addresses.extend(guests.iter().flatten().map(|(_, address)| *address));
        let text = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
        for (rank, slot) in guests.iter_mut().enumerate() {
            let Some((stream, _)) = slot else { continue };
            let bytes = [&token[..], text.as_bytes()].concat();
            let told = Frame { kind: Kind::Data, number: 0, bytes }.write(stream);
            told.map_err(|error| Error::Gone { rank: 0, peer: rank, problem: error.to_string() })?;
        }
        Ok(Table { token, addresses })
    }

    /// Takes in one of this run; a stranger changes nothing. One that shows that the processes do not fit together is
    /// told why, which is the error.
    fn welcome(&self, mut stream: TcpStream, bytes: &[u8], guests: &mut Guests) -> Result<(), String> {
        let Some((address, hello)) = stream.peer_addr().ok().zip(Hello::read(bytes)) else { return Ok(()) };
        let fits = match hello {
            Ok(hello) => self.misfit(&hello, address.ip(), guests).map_or(Ok(hello), Err),
            Err(version) => Err(format!(
                "the process from {} is of another version of tallow (its protocol is {version}, that of rank 0 \
                 {VERSION}): use the same everywhere",
                address.ip()
            )),
        };
        let hello = match fits {
            Ok(hello) => hello,
            Err(problem) => {
                refuse(stream, &problem);
                return Err(problem);
            }
        };
        // One that is gone already may come again.
        if (Frame { kind: Kind::Data, number: 0, bytes: vec![] }).write(&mut stream).is_ok() {
            guests[hello.rank] = Some((stream, SocketAddr::new(address.ip(), hello.port)));
        }
        Ok(())
    }

    /// Why one that comes cannot be taken in, if so.
    fn misfit(&self, hello: &Hello, from: IpAddr, guests: &Guests) -> Option<String> {
        let rank = hello.rank;
        if hello.world_size != self.place.world_size {
            return Some(format!(
                "the process from {from} has WORLD_SIZE = {}, rank 0 has {}",
                hello.world_size, self.place.world_size
            ));
        }
        let is_taken = rank == 0 || guests.get(rank).is_none_or(is_here);
        if is_taken {
            return Some(format!("the process from {from} has RANK = {rank}, as another process has"));
        }
        let difference = self.options.identity.difference(&hello.identity, rank)?;
        Some(format!("{difference}: start all with the same settings, data and version of tallow"))
    }
}

/// Whether one has come, and has not ended since: who waits too long does, and may be started again.
fn is_here(guest: &Option<(TcpStream, SocketAddr)>) -> bool {
    guest.as_ref().is_some_and(|(stream, _)| !has_left(stream))
}

/// Those who are not here, such as `ranks 1, 3`.
fn missing(guests: &Guests) -> String {
    let missing = guests.iter().enumerate().skip(1).filter(|(_, guest)| !is_here(guest));
    let missing: Vec<String> = missing.map(|(rank, _)| rank.to_string()).collect();
    format!("rank{} {}", if missing.len() == 1 { "" } else { "s" }, missing.join(", "))
}

/// Whether the other end of a way on which nothing is due has closed it.
fn has_left(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    // A stream that cannot be used is as good as closed.
    let usable = stream.set_nonblocking(false).is_ok();
    !usable || !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Tells one that has come why it is not taken in.
fn refuse(mut stream: TcpStream, problem: &str) {
    // It may have gone. What it still sends is read, since closing before that would take the reason from it.
    let _ = Frame::abort(0, problem).write(&mut stream);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(FAREWELL));
    let _ = std::io::copy(&mut stream.take(MOST_UNREAD), &mut std::io::sink());
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
