//! How much memory this process has used.

/// The greatest resident size of this process so far in bytes, by the kernel's own count; 0 where the
/// system does not tell.
pub fn peak_bytes() -> u64 {
    status_bytes("VmHWM:")
}

/// The resident size of this process now in bytes; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

fn status_bytes(key: &str) -> u64 {
    let Ok(status) = fs_err::read_to_string("/proc/self/status") else {
        return 0;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_at_least_what_is_resident() {
        assert!(resident_bytes() > 1 << 20);
        assert!(peak_bytes() >= resident_bytes() / 2);
    }
}
