//! What NVIDIA's software on this machine is and lacks, found at run time: nothing of it is needed to build.
//! `driver` is the driver's own library, `libraries` looks for those that an execution provider needs, which `elf`
//! reads from the provider's file, and `version` asks those that were found what they are.

pub(crate) mod driver;
pub(crate) mod elf;
pub(crate) mod libraries;
pub(crate) mod version;
