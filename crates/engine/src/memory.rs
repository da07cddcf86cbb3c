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

/// Where the memory of this process went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Used {
    /// Greatest resident size so far.
    pub peak_bytes: u64,
    /// Weights of the models that are loaded.
    pub weights_bytes: u64,
    /// Keys and values of the last prompt and its answer.
    pub kv_bytes: u64,
    /// Pages of files that are resident: the index as far as it was read, and the program.
    pub files_bytes: u64,
    /// The rest of the peak: activations, pixels, the tokenizer.
    pub other_bytes: u64,
}

impl Used {
    /// Divides the peak so far.
    pub fn now(weights_bytes: u64, kv_bytes: u64) -> Self {
        let peak_bytes = peak_bytes();
        let files_bytes = status_bytes("RssFile:");
        Self {
            peak_bytes,
            weights_bytes,
            kv_bytes,
            files_bytes,
            other_bytes: peak_bytes.saturating_sub(weights_bytes + kv_bytes + files_bytes),
        }
    }
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
