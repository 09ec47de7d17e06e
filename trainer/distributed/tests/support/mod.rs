//! Processes of one host, as threads of a test.
#![allow(dead_code)] // Each test program uses some of it.

use std::time::Duration;

use tallow_distributed::{Identity, Options, Place, TcpCommunicator, free_port};

/// Of a run with these settings, with little patience.
pub fn options(channels: usize) -> Options {
    let identity = Identity::default().with("`batch_size`", "32").with("`seed`", "0");
    Options { timeout: Duration::from_secs(20), ..Options::new(identity, channels).unwrap() }
}

/// A process among so many of this host.
pub fn place(rank: usize, world_size: usize, port: u16) -> Place {
    Place {
        rank,
        local_rank: rank,
        world_size,
        local_world_size: 1,
        master: "127.0.0.1".into(),
        ports: vec![port],
    }
}

/// What each of so many ranks gives, each on a thread of its own.
pub fn on_ranks<T: Send>(world_size: usize, work: impl Fn(Vec<TcpCommunicator>) -> T + Sync) -> Vec<T> {
    let port = free_port().unwrap();
    let rank = |rank| work(TcpCommunicator::connect(&place(rank, world_size, port), &options(2)).unwrap());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..world_size).map(|number| scope.spawn(move || rank(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
