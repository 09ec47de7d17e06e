//! Collectives over TCP on this host: sums, what ranks see of each other, and how they end.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use support::{on_ranks, options, place};
use tallow_distributed::{
    Buckets, Communicator, Error, Identity, InBackground, Options, Place, TcpCommunicator, free_port,
};

/// Numbers that differ by rank and place, with rounding in their sums.
fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|i| ((i * 31 + rank * 17) % 101) as f32 / 7.0 - 5.0).collect()
}

#[test]
fn sums_are_right_and_have_the_same_bits_on_every_rank() {
    for world_size in [1, 2, 3, 5] {
        for length in [0, 1, 2, 7, 4096, 4097, 100_003] {
            let sums = on_ranks(world_size, |all| {
                let mut sums = values(all[0].rank(), length);
                all[0].all_reduce(&mut sums).unwrap();
                let mut wide: Vec<f64> = values(all[0].rank(), length).into_iter().map(f64::from).collect();
                all[0].all_reduce_f64(&mut wide).unwrap();
                (sums, wide)
            });
            let exact: Vec<f64> = (0..length)
                .map(|i| (0..world_size).map(|rank| f64::from(values(rank, length)[i])).sum())
                .take(200)
                .collect();
            for (narrow, wide) in &sums {
                assert_eq!((narrow.len(), wide.len()), (length, length));
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert!(bits(narrow) == bits(&sums[0].0) && *wide == sums[0].1);
                for ((a, b), exact) in narrow.iter().zip(wide).zip(&exact) {
                    assert!((f64::from(*a) - exact).abs() < 1e-4 && (b - exact).abs() < 1e-12);
                }
            }
        }
    }
}

#[test]
fn bytes_are_gathered_by_rank_and_broadcast_from_any() {
    for world_size in [1, 2, 3, 5] {
        on_ranks(world_size, |all| {
            let rank = all[1].rank();
            let gathered = all[1].gather(&vec![rank as u8; 3 * rank]).unwrap();
            let expected: Vec<Vec<u8>> = (0..world_size).map(|rank| vec![rank as u8; 3 * rank]).collect();
            assert_eq!(gathered, expected);
            for root in 0..world_size {
                let mut bytes = vec![rank as u8; rank];
                all[1].broadcast(&mut bytes, root).unwrap();
                assert_eq!(bytes, vec![root as u8; root]);
            }
            all[1].barrier().unwrap();
        });
    }
}

#[test]
fn buckets_sum_in_the_background_while_another_channel_is_used() {
    let sums = on_ranks(3, |mut all| {
        let rank = all[0].rank();
        let sum = InBackground::new(Arc::new(all.remove(1))).unwrap();
        let mut buckets = Buckets::new(Box::new(sum), 1 << 16);
        let names: Vec<String> = (0..40).map(|i| format!("layer{i}.weight")).collect();
        let mut bits = vec![];
        for pass in 0..3 {
            let shape = |i: usize| (i + 1, 97);
            buckets.begin(names.iter().enumerate().map(|(i, n)| (n.clone(), shape(i).into())), &Device::Cpu);
            for (i, name) in names.iter().enumerate() {
                // The last rank has no image in the second pass.
                if (pass, rank) != (1, 2) {
                    let gradient =
                        Tensor::full(0.1 * (rank + i + pass) as f32, shape(i), &Device::Cpu).unwrap();
                    buckets.add(name, gradient).unwrap();
                }
                all[0].barrier().unwrap();
            }
            let gradients = buckets.finish().unwrap();
            for (i, name) in names.iter().enumerate() {
                let sum = &gradients[name];
                assert_eq!((sum.dims2().unwrap(), sum.dtype()), (shape(i), DType::F32));
                bits.extend(
                    sum.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits),
                );
            }
        }
        bits
    });
    assert!(sums[0] == sums[1] && sums[1] == sums[2]);
    let first = f32::from_bits(sums[0][0]);
    assert!((first - 0.3).abs() < 1e-6, "{first}");
}

#[test]
fn a_peer_that_ends_is_named_and_its_reason_goes_round() {
    let start = Instant::now();
    let errors = on_ranks(4, |all| {
        all[0].barrier().unwrap();
        match all[0].rank() {
            1 => {
                all[0].abort(1, "no room on the disk");
                None
            }
            // The others are amid a sum, as the one before or after it or further away.
            _ => {
                let error = all[0].all_reduce(&mut vec![1.0; 1 << 20]).unwrap_err();
                let (origin, reason) = error.origin(all[0].rank());
                all[0].abort(origin, &reason);
                Some(error.to_string())
            }
        }
    });
    for error in errors.iter().flatten() {
        assert!(error.contains("rank 1 failed: no room on the disk"), "{error}");
        assert!(!error.contains("rank 0 failed"), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(10));

    // One that is killed says nothing.
    let errors = on_ranks(3, |all| {
        all[0].barrier().unwrap();
        (all[0].rank() != 2).then(|| {
            let error = all[0].all_reduce(&mut vec![1.0; 1 << 20]).unwrap_err();
            let (origin, reason) = error.origin(all[0].rank());
            all[0].abort(origin, &reason);
            error
        })
    });
    let texts: Vec<String> = errors.iter().flatten().map(ToString::to_string).collect();
    assert!(texts.iter().all(|text| text.contains("lost rank 2")), "{texts:?}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_silent_peer_ends_the_wait_with_its_number() {
    let port = free_port().unwrap();
    let patient = Options { timeout: Duration::from_secs(1), ..options(1) };
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let patient = &patient;
        scope.spawn(move || {
            let _silent = TcpCommunicator::connect(&place(1, 2, port), patient).unwrap();
            wait.recv().unwrap();
        });
        let all = TcpCommunicator::connect(&place(0, 2, port), patient).unwrap();
        let error = all[0].barrier().unwrap_err();
        assert!(matches!(error, Error::Timeout { rank: 0, peer: 1, seconds: 1 }), "{error}");
        assert!(error.to_string().contains("heard nothing from rank 1 for 1 s"), "{error}");
        done.send(()).unwrap();
    });
}

#[test]
fn ranks_that_are_out_of_step_are_told() {
    let errors = on_ranks(2, |all| {
        let length = if all[0].rank() == 0 { 3 } else { 4 };
        all[0].all_reduce(&mut vec![0.0; length]).unwrap_err().to_string()
    });
    assert!(errors.iter().all(|error| error.contains("no longer in step")), "{errors:?}");
}

/// What both ends of a meeting of two say.
fn meeting(first: (Place, Options), second: (Place, Options)) -> [String; 2] {
    let join = |(place, options): (Place, Options)| match TcpCommunicator::connect(&place, &options) {
        Ok(_) => "met".to_owned(),
        Err(error) => error.to_string(),
    };
    let other = std::thread::spawn(move || join(second));
    [join(first), other.join().unwrap()]
}

#[test]
fn processes_of_other_runs_are_refused_on_both_sides() {
    let port = free_port().unwrap();
    let identity = Identity::default().with("`batch_size`", "64").with("`seed`", "1");
    let other = Options { identity, ..options(1) };
    for error in meeting((place(0, 2, port), options(1)), (place(1, 2, port), other)) {
        let parts = ["`batch_size` is 32 on rank 0 and 64 on rank 1: start all with the same", "127.0.0.1:"];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let port = free_port().unwrap();
    for error in meeting((place(0, 2, port), options(1)), (place(1, 3, port), options(1))) {
        assert!(error.contains("WORLD_SIZE = 3, rank 0 has 2"), "{error}");
    }
    let port = free_port().unwrap();
    let hasty = Options { timeout: Duration::from_secs(1), ..options(1) };
    for error in meeting((place(0, 2, port), hasty.clone()), (place(0, 2, port), hasty)) {
        // Two that take themselves for rank 0: one cannot listen, the other waits in vain; neither hangs.
        assert!(error.contains("cannot listen there") || error.contains("did not come"), "{error}");
    }
}

#[test]
fn who_is_missing_is_named_and_strangers_at_the_port_do_no_harm() {
    let hasty = Options { timeout: Duration::from_secs(1), ..options(1) };
    let port = free_port().unwrap();
    let error = TcpCommunicator::connect(&place(0, 3, port), &hasty).err().unwrap().to_string();
    assert!(error.contains("ranks 1, 2 did not come within 1 s"), "{error}");
    let error = TcpCommunicator::connect(&place(1, 3, port), &hasty).err().unwrap().to_string();
    assert!(error.contains("rank 1 cannot join") && error.contains("MASTER_ADDR"), "{error}");
    let nowhere = Place { master: "no-such-host.invalid".into(), ..place(1, 2, port) };
    let error = TcpCommunicator::connect(&nowhere, &hasty).err().unwrap().to_string();
    assert!(error.contains("its host is not known"), "{error}");

    // A port scan, and a launcher's own server at the first of two ports.
    let (taken, port) = (TcpListener::bind("127.0.0.1:0").unwrap(), free_port().unwrap());
    let ports = vec![taken.local_addr().unwrap().port(), port];
    let stranger = std::thread::spawn(move || knock(port).write_all(&[b'x'; 200]).unwrap());
    let server = std::thread::spawn(move || taken.accept().map(drop));
    let host = Place { ports: vec![ports[1]], ..place(0, 2, port) };
    let guest = Place { ports, ..place(1, 2, port) };
    assert_eq!(meeting((host, options(1)), (guest, options(1))), ["met", "met"]);
    stranger.join().unwrap();
    server.join().unwrap().unwrap();
}

/// Lines that [`Options::notice`] was given; in this process, for all tests.
static NOTICES: Mutex<Vec<String>> = Mutex::new(vec![]);

#[test]
fn who_waits_says_so_once_on_both_sides() {
    let notice = |line: &str| NOTICES.lock().unwrap().push(line.to_owned());
    let (port, late) = (free_port().unwrap(), free_port().unwrap());
    let quick = Options { notice_after: Duration::from_millis(200), notice, ..options(1) };
    let hasty = Options { timeout: Duration::from_secs(1), ..quick.clone() };
    assert!(TcpCommunicator::connect(&place(0, 3, port), &hasty).is_err());
    assert!(TcpCommunicator::connect(&place(2, 3, late), &hasty).is_err());
    let expected = [
        format!("rank 0 waits at 127.0.0.1:{port} for ranks 1, 2 (of 3)"),
        format!("rank 2 looks for rank 0 at 127.0.0.1:{late}: nobody listens there"),
    ];
    assert_eq!(*NOTICES.lock().unwrap(), expected);
    // Those who find each other at once say nothing.
    assert_eq!(meeting((place(0, 2, port), quick.clone()), (place(1, 2, port), quick)), ["met", "met"]);
    assert_eq!(NOTICES.lock().unwrap().len(), 2);
}

/// Connects as soon as somebody listens.
fn knock(port: u16) -> TcpStream {
    let start = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
        }
    }
}

#[test]
fn those_who_say_nothing_keep_nobody_waiting() {
    let port = free_port().unwrap();
    let start = Instant::now();
    let host =
        std::thread::spawn(move || TcpCommunicator::connect(&place(0, 3, port), &options(2)).map(drop));
    // Silent, in the middle of a word, and gone.
    let mut silent = [(); 20].map(|()| knock(port));
    silent[7].write_all(b"TALLOWDP").unwrap();
    drop(knock(port));
    let guests = [1, 2].map(|rank| {
        std::thread::spawn(move || TcpCommunicator::connect(&place(rank, 3, port), &options(2)).map(drop))
    });
    for thread in guests.into_iter().chain([host]) {
        thread.join().unwrap().unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    // Where a silent program has the port of rank 0, the time is up at some point.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let hasty = Options { timeout: Duration::from_secs(1), ..options(1) };
    let guest = place(1, 2, taken.local_addr().unwrap().port());
    let error = TcpCommunicator::connect(&guest, &hasty).err().unwrap().to_string();
    assert!(error.contains("was not found within 1 s (no answer comes from there)"), "{error}");

    // One that was found, while others do not come.
    let host = Options { timeout: Duration::from_secs(4), ..options(1) };
    let host = std::thread::spawn(move || TcpCommunicator::connect(&place(0, 3, port), &host).map(drop));
    let error = TcpCommunicator::connect(&place(1, 3, port), &hasty).err().unwrap().to_string();
    assert!(error.contains("not all had come within 1 s"), "{error}");
    let error = host.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("ranks 1, 2 did not come within 4 s, or left again"), "{error}");
}

#[test]
fn another_version_is_called_so_and_one_that_comes_again_is_taken_in() {
    let host = |port| move || TcpCommunicator::connect(&place(0, 2, port), &options(1)).map(drop);
    let port = free_port().unwrap();
    let old = std::thread::spawn(host(port));
    let mut stream = knock(port);
    // The first version's hello.
    stream.write_all(&[&b"TALLOWDP"[..], &1u32.to_le_bytes(), &[0; 50]].concat()).unwrap();
    let mut answer = vec![];
    stream.read_to_end(&mut answer).unwrap();
    let error = old.join().unwrap().unwrap_err().to_string();
    for text in [error, String::from_utf8_lossy(&answer).into_owned()] {
        assert!(text.contains("is of another version of tallow (its protocol is 1"), "{text}");
    }

    // A host that was taken away and comes back before all are there.
    let port = free_port().unwrap();
    let rank_0 =
        std::thread::spawn(move || TcpCommunicator::connect(&place(0, 3, port), &options(1)).map(drop));
    let hasty = Options { timeout: Duration::from_millis(500), ..options(1) };
    assert!(TcpCommunicator::connect(&place(1, 3, port), &hasty).is_err());
    let guests = [1, 2].map(|rank| {
        std::thread::spawn(move || TcpCommunicator::connect(&place(rank, 3, port), &options(1)).map(drop))
    });
    for thread in guests.into_iter().chain([rank_0]) {
        thread.join().unwrap().unwrap();
    }
}
