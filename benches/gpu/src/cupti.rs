//! Which kernels ran for how long, by CUPTI, the library behind NVIDIA's profilers and PyTorch's. It is loaded when it is
//! asked for: it comes with the CUDA toolkit, with PyTorch, and as the package nvidia-cuda-cupti.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null_mut, read_unaligned};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail};
use libloading::Library;

/// Where the library is looked for if `TALLOW_CUPTI` does not name it: by the loader's rules.
const NAMES: [&str; 3] = ["libcupti.so.13", "libcupti.so.12", "libcupti.so"];

/// `CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL`: kernels, without making them run one after another.
const KERNELS: u32 = 10;
/// `CUPTI_ACTIVITY_FLAG_FLUSH_FORCED`: also buffers that are not full.
const FORCED: u32 = 1;

/// Where a record of a kernel has what is read here: the same in `CUpti_ActivityKernel4` to `13` (cupti_activity.h).
const START: usize = 16;
const END: usize = 24;
const NAME: usize = 104;

/// A buffer that CUPTI fills; its records are aligned to 8 bytes.
const BUFFER: Layout = match Layout::from_size_align(1 << 20, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("8 is a power of two"),
};

type Request = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
type Complete = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

/// The functions that are used.
struct Cupti {
    register: unsafe extern "C" fn(Request, Complete) -> i32,
    enable: unsafe extern "C" fn(u32) -> i32,
    disable: unsafe extern "C" fn(u32) -> i32,
    flush: unsafe extern "C" fn(u32) -> i32,
    next: Next,
    _library: Library,
}

type Next = unsafe extern "C" fn(*mut u8, usize, *mut *mut u8) -> i32;

/// A kernel's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub name: String,
    pub nanoseconds: u64,
}

/// CUPTI hands its buffers to functions that know nothing but what is static.
static CUPTI: OnceLock<Cupti> = OnceLock::new();
static RAN: Mutex<Vec<Ran>> = Mutex::new(Vec::new());

/// The kernels that run while `work` does, in the order in which CUPTI reports them. `work` waits for their end.
///
/// # Errors
/// Where there is no CUPTI, it refuses, or `work` fails.
pub fn record(work: impl FnOnce() -> Result<()>) -> Result<Vec<Ran>> {
    let cupti = load()?;
    // SAFETY: the functions are CUPTI's, of these types; the callbacks live as long as the program.
    unsafe {
        check("register", (cupti.register)(request, complete))?;
        check("begin", (cupti.enable)(KERNELS))?;
        let done = work();
        check("flush", (cupti.flush)(FORCED))?;
        check("end", (cupti.disable)(KERNELS))?;
        done?;
    }
    Ok(std::mem::take(&mut *RAN.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn check(what: &str, code: i32) -> Result<()> {
    if code != 0 {
        bail!("CUPTI cannot {what}: its error {code} (15: not initialised, 35: not permitted for this user)");
    }
    Ok(())
}

fn load() -> Result<&'static Cupti> {
    if let Some(cupti) = CUPTI.get() {
        return Ok(cupti);
    }
    let named = std::env::var("TALLOW_CUPTI").ok();
    let names: Vec<&str> = named.as_deref().map_or(NAMES.to_vec(), |name| vec![name]);
    // SAFETY: NVIDIA's library has no initialisers that ask anything of whoever loads it.
    let library = names.iter().find_map(|name| unsafe { Library::new(*name) }.ok()).with_context(|| {
        format!(
            "no {}: kernels are profiled by CUPTI, which comes with the CUDA toolkit, with PyTorch and as the Python \
             package nvidia-cuda-cupti; put its folder on LD_LIBRARY_PATH, or its path into TALLOW_CUPTI",
            names.join(", ")
        )
    })?;
    // SAFETY: the types are those of cupti_activity.h.
    let cupti = unsafe {
        Cupti {
            register: *library.get(b"cuptiActivityRegisterCallbacks\0")?,
            enable: *library.get(b"cuptiActivityEnable\0")?,
            disable: *library.get(b"cuptiActivityDisable\0")?,
            flush: *library.get(b"cuptiActivityFlushAll\0")?,
            next: *library.get(b"cuptiActivityGetNextRecord\0")?,
            _library: library,
        }
    };
    Ok(CUPTI.get_or_init(|| cupti))
}

/// Gives CUPTI a buffer.
unsafe extern "C" fn request(buffer: *mut *mut u8, size: *mut usize, records: *mut usize) {
    // SAFETY: CUPTI gives the addresses of three variables of its own. Without memory it gets none, and drops records.
    unsafe {
        *buffer = alloc(BUFFER);
        *size = if (*buffer).is_null() { 0 } else { BUFFER.size() };
        // As many as fit.
        *records = 0;
    }
}

/// Takes a buffer back.
unsafe extern "C" fn complete(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, valid: usize) {
    if buffer.is_null() {
        return;
    }
    if let Some(cupti) = CUPTI.get() {
        // SAFETY: the buffer is one of ours, and CUPTI has written `valid` bytes.
        let ran = unsafe { kernels(cupti.next, buffer, valid) };
        RAN.lock().unwrap_or_else(PoisonError::into_inner).extend(ran);
    }
    // SAFETY: `request` allocated it so.
    unsafe { dealloc(buffer, BUFFER) };
}

/// The kernels in a buffer.
///
/// # Safety
/// `next` gives the records of this buffer one after another.
unsafe fn kernels(next: Next, buffer: *mut u8, valid: usize) -> Vec<Ran> {
    let mut ran = vec![];
    let mut record = null_mut();
    // SAFETY: a record begins with its kind; one of a kernel has its times and its name at these places, and the name
    // lives as long as its module.
    unsafe {
        while next(buffer, valid, &raw mut record) == 0 {
            if read_unaligned(record.cast::<u32>()) != KERNELS {
                continue;
            }
            let time = |at: usize| read_unaligned(record.add(at).cast::<u64>());
            let name = read_unaligned(record.add(NAME).cast::<*const c_char>());
            let name = match name.is_null() {
                true => "without a name".into(),
                false => CStr::from_ptr(name).to_string_lossy().into_owned(),
            };
            ran.push(Ran { name, nanoseconds: time(END).saturating_sub(time(START)) });
        }
    }
    ran
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: usize = 160;

    /// Records of one size, one behind the other.
    unsafe extern "C" fn next(buffer: *mut u8, valid: usize, record: *mut *mut u8) -> i32 {
        unsafe {
            let following = if (*record).is_null() { buffer } else { (*record).add(RECORD) };
            if following.offset_from(buffer) as usize >= valid {
                return 12; // CUPTI_ERROR_MAX_LIMIT_REACHED
            }
            *record = following;
        }
        0
    }

    #[test]
    fn kernels_are_read_and_other_records_passed_over() {
        let record = |kind: u32, start: u64, end: u64, name: *const c_char| {
            let mut bytes = vec![0u8; RECORD];
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            bytes[START..START + 8].copy_from_slice(&start.to_ne_bytes());
            bytes[END..END + 8].copy_from_slice(&end.to_ne_bytes());
            bytes[NAME..NAME + 8].copy_from_slice(&(name as usize).to_ne_bytes());
            bytes
        };
        let records = [
            record(KERNELS, 100, 350, c"gemm".as_ptr()),
            record(1, 0, 9, c"copy".as_ptr()),
            record(KERNELS, 400, 401, std::ptr::null()),
        ];
        let mut buffer = records.concat();
        let (start, length) = (buffer.as_mut_ptr(), buffer.len());
        let ran = unsafe { kernels(next, start, length) };
        let expected = [("gemm", 250), ("without a name", 1)];
        assert_eq!(ran, expected.map(|(name, nanoseconds)| Ran { name: name.into(), nanoseconds }));
    }
}
