//! A worker's limits on itself, set before it has seen a byte of the file: address space,
//! processor time per request, no core dumps, no files written.

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bounds the address space to what is in use now and `memory_bytes` more, and forbids writing
/// files and core dumps.
///
/// # Errors
/// What the system says where a limit cannot be set.
#[cfg(unix)]
pub(crate) fn confine(memory_bytes: u64) -> std::io::Result<()> {
    lower(Resource::Core, 0)?;
    lower(Resource::Fsize, 0)?;
    let memory = lower(
        Resource::As,
        address_space_bytes().saturating_add(memory_bytes),
    );
    // macOS knows the limit but need not accept it.
    if cfg!(target_os = "linux") {
        memory
    } else {
        Ok(())
    }
}

/// Nothing to be set on this system: time is bounded by the parent, memory is not.
#[cfg(not(unix))]
pub(crate) fn confine(_: u64) -> std::io::Result<()> {
    Ok(())
}

/// Allows the process `seconds` of processor time from now on, and a little for answering: an
/// endless loop ends even when the parent is gone.
#[cfg(unix)]
pub(crate) fn allow_seconds(seconds: u64) {
    use rustix::time::{ClockId, clock_gettime};
    const GRACE_SECONDS: u64 = 5;
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let until = u64::try_from(used)
        .unwrap_or(0)
        .saturating_add(seconds)
        .saturating_add(GRACE_SECONDS);
    let maximum = getrlimit(Resource::Cpu).maximum;
    let current = Some(maximum.map_or(until, |m| m.min(until)));
    // The parent's clock is the limit that counts; this one is for when there is no parent.
    let _ = setrlimit(Resource::Cpu, Rlimit { current, maximum });
}

/// Nothing to be set on this system.
#[cfg(not(unix))]
pub(crate) fn allow_seconds(_: u64) {}

/// Lowers a limit for good.
#[cfg(unix)]
fn lower(resource: Resource, to: u64) -> std::io::Result<()> {
    let to = getrlimit(resource).maximum.map_or(to, |m| m.min(to));
    let limit = Rlimit {
        current: Some(to),
        maximum: Some(to),
    };
    Ok(setrlimit(resource, limit)?)
}

/// Address space in use: the program itself may map gigabytes before it does anything.
#[cfg(target_os = "linux")]
fn address_space_bytes() -> u64 {
    fs_err::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|s| s.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |pages| {
            pages.saturating_mul(rustix::param::page_size() as u64)
        })
}

/// Unknown on this system.
#[cfg(all(unix, not(target_os = "linux")))]
fn address_space_bytes() -> u64 {
    0
}
