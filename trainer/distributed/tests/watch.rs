//! Watching over the others: who ends is noticed, with the reason; who is done is no loss.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod support;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use support::{on_ranks, options, place};
use tallow_distributed::{Communicator, Error, Options, TcpCommunicator, Watch, free_port};

const EVERY: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(5);

/// Watches by the last communicator of a rank; its loss comes by the other value.
fn begin(mut all: Vec<TcpCommunicator>) -> (Watch, Receiver<Error>) {
    let (lost, losses) = channel();
    let watched = Arc::new(all.pop().unwrap());
    (Watch::new(watched, EVERY, move |error| lost.send(error).unwrap()).unwrap(), losses)
}

/// The loss that a rank hears of.
fn loss(all: Vec<TcpCommunicator>) -> String {
    let (_watch, losses) = begin(all);
    losses.recv_timeout(SOON).unwrap().to_string()
}

#[test]
fn a_rank_that_fails_is_heard_by_all_with_its_reason() {
    for world_size in [2, 3, 5] {
        on_ranks(world_size, |all| {
            let rank = all[0].rank();
            let (watch, losses) = begin(all);
            std::thread::sleep(3 * EVERY);
            if rank == 1 {
                watch.abort(1, "the disk is full");
                assert!(losses.recv_timeout(SOON).is_err(), "a rank is no loss to itself");
                return;
            }
            let loss = losses.recv_timeout(SOON).unwrap().to_string();
            assert_eq!(loss, "rank 1 failed: the disk is full");
        });
    }
}

#[test]
fn a_rank_that_panics_is_not_taken_to_be_done() {
    on_ranks(2, |all| {
        let rank = all[0].rank();
        let (watch, losses) = begin(all);
        if rank == 1 {
            let panics = std::thread::spawn(move || {
                let _watch = watch;
                panic!("as this test wants it");
            });
            return assert!(panics.join().is_err());
        }
        assert_eq!(losses.recv_timeout(SOON).unwrap().to_string(), "rank 1 failed: it panicked");
    });
}

#[test]
fn a_rank_that_dies_is_heard_by_all() {
    for world_size in [2, 4] {
        on_ranks(world_size, |all| {
            // Ended with its connections, and nothing said.
            if all[0].rank() == 1 {
                return std::thread::sleep(3 * EVERY);
            }
            let loss = loss(all);
            assert!(loss.contains("lost rank 1 ("), "{loss}");
        });
    }
}

#[test]
fn a_rank_that_is_silent_is_heard_of_in_the_end() {
    let port = free_port().unwrap();
    let patience = Duration::from_secs(1);
    std::thread::scope(|scope| {
        for rank in 0..2 {
            scope.spawn(move || {
                let options = Options { timeout: patience, ..options(1) };
                let all = TcpCommunicator::connect(&place(rank, 2, port), &options).unwrap();
                if rank == 1 {
                    return std::thread::sleep(3 * patience);
                }
                let loss = loss(all);
                assert!(loss.contains("heard nothing from rank 1 for 1 s"), "{loss}");
            });
        }
    });
}

#[test]
fn a_rank_that_is_done_is_no_loss_and_does_not_wait() {
    for world_size in [1, 2, 3] {
        on_ranks(world_size, |all| {
            let rank = all[0].rank();
            let (watch, losses) = begin(all);
            std::thread::sleep(3 * EVERY + EVERY * rank as u32);
            let start = Instant::now();
            if rank > 0 || world_size == 1 {
                drop(watch);
                assert!(start.elapsed() < SOON / 2);
            }
            assert_eq!(losses.recv_timeout(SOON).unwrap_err(), RecvTimeoutError::Disconnected);
        });
    }
}
