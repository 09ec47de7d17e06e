//! NVIDIA's driver, opened at run time: its version, its devices, and copies between host and device.
//! The names ending in `_v2` are those that cuda.h gives the functions since CUDA 3.2 and 4.0; older ones mean others.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;
use serde::Serialize;

/// The driver's library, as cuda.h's users link it.
pub(crate) const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// What to do where the driver is absent or does not work.
pub(crate) const REMEDY: &str = "install NVIDIA's driver (in a container: start it with the GPUs, such as --gpus all), or use --engine ort";

/// `CUdevice`, an ordinal; `CUdeviceptr`, an address on a device; `CUresult`, 0 for success.
type Device = c_int;
type DevicePointer = u64;
type Status = c_int;

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuDevice {
    /// Its number, as `--cuda-device` takes it. `CUDA_VISIBLE_DEVICES` decides which there are.
    pub id: i32,
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
}

/// The functions that are used here, all of them found when the library was opened.
pub(crate) struct Driver {
    version: c_int,
    device_count: unsafe extern "system" fn(*mut c_int) -> Status,
    device_get: unsafe extern "system" fn(*mut Device, c_int) -> Status,
    device_name: unsafe extern "system" fn(*mut c_char, c_int, Device) -> Status,
    device_memory: unsafe extern "system" fn(*mut usize, Device) -> Status,
    retain: unsafe extern "system" fn(*mut *mut c_void, Device) -> Status,
    release: unsafe extern "system" fn(Device) -> Status,
    push: unsafe extern "system" fn(*mut c_void) -> Status,
    pop: unsafe extern "system" fn(*mut *mut c_void) -> Status,
    to_device: unsafe extern "system" fn(DevicePointer, *const c_void, usize) -> Status,
    to_host: unsafe extern "system" fn(*mut c_void, DevicePointer, usize) -> Status,
    error_text: unsafe extern "system" fn(Status, *mut *const c_char) -> Status,
    /// The functions above live in it.
    _library: Library,
}

impl Driver {
    /// The driver of this machine, opened once.
    ///
    /// # Errors
    /// A text that says which file is missing, or what the driver answers.
    pub(crate) fn get() -> Result<&'static Driver, String> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        DRIVER.get_or_init(|| Driver::open(LIBRARY)).as_ref().map_err(Clone::clone)
    }

    fn open(name: &str) -> Result<Driver, String> {
        // SAFETY: it is the driver's library, whose initialisers every CUDA program runs.
        let library = unsafe { Library::new(name) }
            .map_err(|_| format!("{name}, the NVIDIA driver's library, is not found"))?;
        /// Looks a function up; the type is that of the field.
        fn find<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
            // SAFETY: the types below are those of cuda.h.
            let symbol = unsafe { library.get::<T>(name.as_bytes()) };
            symbol
                .map(|symbol| *symbol)
                .map_err(|_| format!("the NVIDIA driver is too old: it has no {name}"))
        }
        let init: unsafe extern "system" fn(c_uint) -> Status = find(&library, "cuInit")?;
        let get_version: unsafe extern "system" fn(*mut c_int) -> Status =
            find(&library, "cuDriverGetVersion")?;
        let mut driver = Driver {
            version: 0,
            device_count: find(&library, "cuDeviceGetCount")?,
            device_get: find(&library, "cuDeviceGet")?,
            device_name: find(&library, "cuDeviceGetName")?,
            device_memory: find(&library, "cuDeviceTotalMem_v2")?,
            retain: find(&library, "cuDevicePrimaryCtxRetain")?,
            release: find(&library, "cuDevicePrimaryCtxRelease_v2")?,
            push: find(&library, "cuCtxPushCurrent_v2")?,
            pop: find(&library, "cuCtxPopCurrent_v2")?,
            to_device: find(&library, "cuMemcpyHtoD_v2")?,
            to_host: find(&library, "cuMemcpyDtoH_v2")?,
            error_text: find(&library, "cuGetErrorString")?,
            _library: library,
        };
        // SAFETY: `cuInit` takes 0; the version is written to where it is told to.
        let (started, told) = unsafe { (init(0), get_version(&mut driver.version)) };
        driver.check("cuInit", started)?;
        driver.check("cuDriverGetVersion", told)?;
        Ok(driver)
    }

    /// The newest CUDA that this driver runs: major and minor number.
    pub(crate) fn cuda_version(&self) -> (i32, i32) {
        (self.version / 1000, self.version % 1000 / 10)
    }

    /// The GPUs that this process sees.
    ///
    /// # Errors
    /// What the driver answers.
    pub(crate) fn devices(&self) -> Result<Vec<GpuDevice>, String> {
        let mut count = 0;
        // SAFETY: the driver writes a number to where it is told to.
        self.check("cuDeviceGetCount", unsafe { (self.device_count)(&mut count) })?;
        (0..count).map(|id| self.device(id)).collect()
    }

    fn device(&self, id: i32) -> Result<GpuDevice, String> {
        let (mut name, mut memory) = ([0u8; 256], 0);
        let device = self.handle(id)?;
        // SAFETY: the driver writes at most as many bytes as it is told, with a zero at their end.
        unsafe {
            let length = name.len() as c_int;
            self.check("cuDeviceGetName", (self.device_name)(name.as_mut_ptr().cast(), length, device))?;
            self.check("cuDeviceTotalMem", (self.device_memory)(&mut memory, device))?;
        }
        let name =
            CStr::from_bytes_until_nul(&name).map_or(String::new(), |name| name.to_string_lossy().into());
        Ok(GpuDevice { id, name, memory: memory as u64 })
    }

    fn handle(&self, id: i32) -> Result<Device, String> {
        let mut device = 0;
        // SAFETY: as above.
        self.check("cuDeviceGet", unsafe { (self.device_get)(&mut device, id) })?;
        Ok(device)
    }

    /// The context that ONNX Runtime computes in on that device.
    ///
    /// # Errors
    /// What the driver answers, as for a device that is not there.
    pub(crate) fn context(&'static self, id: i32) -> Result<Context, String> {
        let device = self.handle(id)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: as above; `Context` gives back what is taken here.
        self.check("cuDevicePrimaryCtxRetain", unsafe { (self.retain)(&mut handle, device) })?;
        Ok(Context { driver: self, device, handle })
    }

    fn check(&self, function: &str, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: the driver writes the address of a text of its own, or null for a number it does not know.
        let text = unsafe {
            (self.error_text)(status, &mut text);
            if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy() }
        };
        Err(format!("the NVIDIA driver's {function} says: {text} ({status})"))
    }
}

/// A device's primary context, which CUDA's runtime, and so ONNX Runtime, uses.
pub(crate) struct Context {
    driver: &'static Driver,
    device: Device,
    handle: *mut c_void,
}

// SAFETY: a context belongs to no thread; it is made current for each copy.
unsafe impl Send for Context {}

impl Context {
    /// Copies host memory to the device address, and returns once it is there. From pinned memory the device fetches it
    /// by itself.
    ///
    /// # Safety
    /// `to` is memory of this device, of at least the length of `from`, which nothing uses meanwhile.
    ///
    /// # Errors
    /// What the driver answers.
    pub(crate) unsafe fn copy_to_device(&self, from: &[u8], to: *mut c_void) -> Result<(), String> {
        self.current(|driver| {
            // SAFETY: by the caller.
            let status = unsafe { (driver.to_device)(to as DevicePointer, from.as_ptr().cast(), from.len()) };
            driver.check("cuMemcpyHtoD", status)
        })
    }

    /// Copies from the device address to host memory, and returns once it is there.
    ///
    /// # Safety
    /// `from` is memory of this device, of at least the length of `to`, which nothing writes meanwhile.
    ///
    /// # Errors
    /// What the driver answers.
    pub(crate) unsafe fn copy_to_host(&self, from: *const c_void, to: &mut [u8]) -> Result<(), String> {
        self.current(|driver| {
            // SAFETY: by the caller.
            let status = unsafe { (driver.to_host)(to.as_mut_ptr().cast(), from as DevicePointer, to.len()) };
            driver.check("cuMemcpyDtoH", status)
        })
    }

    /// Runs `copy` with this context current, and then whichever was.
    fn current(&self, copy: impl FnOnce(&Driver) -> Result<(), String>) -> Result<(), String> {
        // SAFETY: the handle is one that the driver gave, and it is given back in `drop` only.
        self.driver.check("cuCtxPushCurrent", unsafe { (self.driver.push)(self.handle) })?;
        let copied = copy(self.driver);
        let mut popped = std::ptr::null_mut();
        // SAFETY: takes off what was put on above.
        let restored = self.driver.check("cuCtxPopCurrent", unsafe { (self.driver.pop)(&mut popped) });
        copied.and(restored)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained in `Driver::context`. Nothing can be done where it fails.
        unsafe { (self.driver.release)(self.device) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver whose device is the host, with one device and functions that fail on request.
    #[cfg(unix)]
    fn driver() -> &'static Driver {
        unsafe extern "system" fn count(count: *mut c_int) -> Status {
            // SAFETY: the callers give addresses of their own.
            unsafe { *count = 1 };
            0
        }
        unsafe extern "system" fn get(device: *mut Device, id: c_int) -> Status {
            // SAFETY: as above.
            unsafe { *device = id };
            if id == 0 { 0 } else { 101 }
        }
        unsafe extern "system" fn name(name: *mut c_char, length: c_int, _: Device) -> Status {
            assert!(length > 4);
            // SAFETY: as above, and long enough.
            unsafe { name.copy_from(c"H100".as_ptr(), 5) };
            0
        }
        unsafe extern "system" fn memory(bytes: *mut usize, _: Device) -> Status {
            // SAFETY: as above.
            unsafe { *bytes = 80 << 30 };
            0
        }
        unsafe extern "system" fn context(handle: *mut *mut c_void, _: Device) -> Status {
            // SAFETY: as above.
            unsafe { *handle = std::ptr::dangling_mut::<u64>().cast() };
            0
        }
        unsafe extern "system" fn release(_: Device) -> Status {
            0
        }
        unsafe extern "system" fn push(handle: *mut c_void) -> Status {
            if handle.is_null() { 201 } else { 0 }
        }
        unsafe extern "system" fn pop(handle: *mut *mut c_void) -> Status {
            // SAFETY: as above.
            unsafe { *handle = std::ptr::null_mut() };
            0
        }
        unsafe extern "system" fn to_device(to: DevicePointer, from: *const c_void, bytes: usize) -> Status {
            // SAFETY: as above; the device is the host.
            unsafe { (to as *mut u8).copy_from(from.cast(), bytes) };
            if bytes == 1 { 1 } else { 0 }
        }
        unsafe extern "system" fn to_host(to: *mut c_void, from: DevicePointer, bytes: usize) -> Status {
            // SAFETY: as above.
            unsafe { to.cast::<u8>().copy_from(from as *const u8, bytes) };
            0
        }
        unsafe extern "system" fn error(status: Status, text: *mut *const c_char) -> Status {
            if status == 101 {
                // SAFETY: as above.
                unsafe { *text = c"invalid device ordinal".as_ptr() };
            }
            0
        }
        Box::leak(Box::new(Driver {
            version: 13_010,
            device_count: count,
            device_get: get,
            device_name: name,
            device_memory: memory,
            retain: context,
            release,
            push,
            pop,
            to_device,
            to_host,
            error_text: error,
            _library: libloading::os::unix::Library::this().into(),
        }))
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_described_and_copies_go_both_ways() {
        let driver = driver();
        assert_eq!(driver.cuda_version(), (13, 1));
        assert_eq!(driver.devices().unwrap(), [GpuDevice { id: 0, name: "H100".into(), memory: 80 << 30 }]);
        let text = driver.context(3).err().unwrap();
        assert_eq!(text, "the NVIDIA driver's cuDeviceGet says: invalid device ordinal (101)");

        let context = driver.context(0).unwrap();
        let (mut there, mut back) = ([0u8; 4], [0u8; 4]);
        // SAFETY: the addresses are those of arrays of these lengths.
        unsafe {
            context.copy_to_device(&[1, 2, 3, 4], there.as_mut_ptr().cast()).unwrap();
            context.copy_to_host(there.as_ptr().cast(), &mut back).unwrap();
            let text = context.copy_to_device(&[9], there.as_mut_ptr().cast()).unwrap_err();
            assert_eq!(text, "the NVIDIA driver's cuMemcpyHtoD says: unknown error (1)");
        }
        assert_eq!(back, [1, 2, 3, 4]);
    }

    #[test]
    fn a_machine_without_a_driver_is_told_which_file_is_missing() {
        let text = Driver::open("libno-such-driver.so.1").err().unwrap();
        assert_eq!(text, "libno-such-driver.so.1, the NVIDIA driver's library, is not found");
    }
}
