//! How much memory this process has used.

pub use colibri_models::WeightBytes;

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
    /// Weights of the models that are loaded: the next two.
    pub weights_bytes: u64,
    /// Of vision towers and connectors.
    pub vision_weights_bytes: u64,
    /// Of text models, heads and adapters.
    pub text_weights_bytes: u64,
    /// Weights that two models share; without sharing they would be held once more.
    pub shared_weights_bytes: u64,
    /// Visual tokens of the pages of the last answer.
    pub features_bytes: u64,
    /// Keys and values of the last prompt and its answer.
    pub kv_bytes: u64,
    /// Keys and values that are kept for the next prompt that begins alike, among them those of the last where there is room.
    pub prefix_bytes: u64,
    /// Pages of files that are resident: the index as far as it was read, and the program.
    pub files_bytes: u64,
    /// The rest of the peak: activations, pixels, the tokenizer.
    pub other_bytes: u64,
}

impl Used {
    /// The peak so far, of which so much are weights.
    pub fn now(weights: WeightBytes) -> Self {
        Self {
            peak_bytes: peak_bytes(),
            weights_bytes: weights.total() as u64,
            vision_weights_bytes: weights.vision as u64,
            text_weights_bytes: weights.text as u64,
            shared_weights_bytes: weights.shared as u64,
            // Weights that are mapped from where they are kept packed are counted as weights.
            files_bytes: status_bytes("RssFile:").saturating_sub(mapped_weight_bytes()),
            ..Self::default()
        }
        .divided()
    }

    /// The rest set to what the others leave of the peak.
    #[must_use]
    pub fn divided(mut self) -> Self {
        let known = self.weights_bytes
            + self.features_bytes
            + self.kv_bytes.max(self.prefix_bytes)
            + self.files_bytes;
        self.other_bytes = self.peak_bytes.saturating_sub(known);
        self
    }
}

/// Resident bytes of weights that are mapped from files.
fn mapped_weight_bytes() -> u64 {
    let maps = fs_err::read_to_string("/proc/self/smaps").unwrap_or_default();
    resident_of(&maps, ".packed")
}

/// Resident bytes of the mapped files whose names end in `ending`, of a text like `/proc/self/smaps`.
fn resident_of(maps: &str, ending: &str) -> u64 {
    let (mut is_wanted, mut total) = (false, 0);
    for line in maps.lines() {
        match line.strip_prefix("Rss:") {
            Some(rest) if is_wanted => {
                let number = rest.split_whitespace().next();
                total += number
                    .and_then(|number| number.parse::<u64>().ok())
                    .unwrap_or(0)
                    * 1024;
            }
            // A mapping begins with its addresses, all else with a word and a colon.
            None if line
                .split(' ')
                .next()
                .is_some_and(|word| !word.ends_with(':')) =>
            {
                is_wanted = line.ends_with(ending);
            }
            Some(_) | None => {}
        }
    }
    total
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
    fn mappings_of_one_kind_are_added() {
        let maps = "7f00-7f10 r--p 00000000 08:01 5 /home/a b/x.packed\nSize: 64 kB\nRss:  60 kB\nPss: 1 kB\n\
                    7f10-7f20 r-xp 00000000 08:01 6 /usr/bin/colibri\nRss: 900 kB\nVmFlags: rd .packed\n\
                    7f20-7f30 r--p 00000000 08:01 7 /home/y.packed\nRss:  4 kB\n7f30-7f40 rw-p 00000000 00:00 0\nRss: 7 kB\n";
        assert_eq!(resident_of(maps, ".packed"), 64 * 1024);
    }

    #[test]
    fn the_peak_is_at_least_what_is_resident() {
        assert!(resident_bytes() > 1 << 20);
        assert!(peak_bytes() >= resident_bytes() / 2);
    }
}
