//! Versions of CUDA.

use std::fmt;

/// A version of CUDA: of a compiler, or the one that a driver supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 13 of 13.0.
    pub major: u32,
    /// 0 of 13.0.
    pub minor: u32,
}

impl Version {
    /// The oldest compiler for the kernels of this program.
    pub const OLDEST: Self = Self { major: 12, minor: 0 };

    /// From the number that `cuDriverGetVersion` returns: 13000.
    pub fn of_number(number: i32) -> Self {
        let number = number.unsigned_abs();
        Self { major: number / 1000, minor: number % 1000 / 10 }
    }

    /// From "13.0".
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Whether a driver of version `driver` loads the code of a compiler of this version: all drivers of the same major version do. Where the
    /// driver is not known, that is assumed.
    pub fn loads(self, driver: Option<Self>) -> bool {
        driver.is_none_or(|driver| self.major <= driver.major)
    }

    /// What to say where it does not.
    pub(super) fn too_new(self, what: &str, driver: Option<Self>) -> String {
        let driver = driver.map_or_else(String::new, |driver| format!(" {driver}"));
        format!("{what} has version {self}, whose code this machine's driver, for CUDA{driver}, does not load")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_loads_code_of_its_major_version_and_older() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("13.2").loads(Some(Version::of_number(13000))));
        assert!(version("12.9").loads(Some(Version::of_number(13000))));
        assert!(!version("13.0").loads(Some(Version::of_number(12080))));
        assert!(version("13.0").loads(None));
        assert_eq!((Version::of_number(12080).to_string(), Version::parse("x")), ("12.8".into(), None));
    }
}
