//! How many threads compute.

/// Names the number of threads, for rayon and for candle, by the variable that both read: `asked`, or else what the user has
/// set it to, or else one for each core. candle, where it is not set, reads the system's list of cores for each product of
/// matrices, which took more time than many a product.
pub fn settle(asked: Option<u16>) {
    const THREADS: &str = "RAYON_NUM_THREADS";
    let cores = || std::thread::available_parallelism().ok().map(usize::from);
    let threads = match asked {
        Some(asked) => Some(usize::from(asked)),
        None if std::env::var_os(THREADS).is_some() => None,
        None => cores(),
    };
    if let Some(threads) = threads {
        // SAFETY: the program begins with this, before it has a second thread.
        unsafe { std::env::set_var(THREADS, threads.to_string()) };
    }
}
