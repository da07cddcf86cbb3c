//! The system's `ffprobe` and `ffmpeg`, run like the worker of PDFs: in a process of their own, with bounds
//! on memory, processor and wall-clock time, and none of the network.
//!
//! The program that reads the untrusted file is started through [`exec`], which lowers its own limits and
//! then becomes it. The file has been seen to be a container of video by its first bytes; the tools are told
//! to open files alone and containers alone, so that a playlist cannot make them fetch or read anything else.

use std::ffi::OsString;
use std::io::{BufRead, Read};
use std::path::Path;
use std::process::ExitCode;

use image::RgbImage;
use serde::Deserialize;

use crate::document::OpenOptions;
use crate::error::{Error, Result, Trouble};
use crate::limits::Limits;
use crate::worker::process::Process;
use crate::worker::{WorkerCommand, confine};

/// Containers that are opened. Playlists, lists of files and the like are not among them.
const FORMATS: &str = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf";
/// What a shell answers for a program that is not there, and so does [`exec`].
const NOT_THERE: u8 = 127;
/// What `ffprobe` may say.
const MOST_PROBE_BYTES: u64 = 1 << 20;
/// The word by which a worker program is asked to become another one.
const EXEC: &str = "exec";

/// What is known of a video file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probed {
    pub(super) num_frames: usize,
    pub(super) fps: f64,
}

/// Lowers this process's limits and becomes the program in `args`: memory in bytes, seconds of processor
/// time, then the program and its arguments. The worker program calls it where its arguments begin with
/// `exec`. It returns only where that fails.
pub fn exec(args: &[OsString]) -> ExitCode {
    let number = |at: usize| args.get(at)?.to_str()?.parse::<u64>().ok();
    let (Some(memory), Some(seconds), Some(program)) = (number(0), number(1), args.get(2)) else {
        return ExitCode::FAILURE;
    };
    if confine::confine(memory).is_err() {
        return ExitCode::FAILURE;
    }
    confine::allow_seconds(seconds);
    become_program(program, &args[3..])
}

#[cfg(unix)]
fn become_program(program: &OsString, args: &[OsString]) -> ExitCode {
    use std::os::unix::process::CommandExt as _;
    let error = std::process::Command::new(program).args(args).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        ExitCode::from(NOT_THERE)
    } else {
        ExitCode::FAILURE
    }
}

/// Programs cannot become others on this system; they are started instead.
#[cfg(not(unix))]
fn become_program(program: &OsString, args: &[OsString]) -> ExitCode {
    match std::process::Command::new(program).args(args).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => ExitCode::from(NOT_THERE),
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

/// Counts the frames of a video file by its packets, without decoding any.
pub(super) fn probe(path: &Path, options: &OpenOptions) -> Result<Probed> {
    let mut args = input_args();
    args.extend(
        [
            "-select_streams",
            "V:0",
            "-count_packets",
            "-show_entries",
            "stream=avg_frame_rate,r_frame_rate,nb_read_packets,duration:format=duration",
            "-of",
            "json",
        ]
        .map(OsString::from),
    );
    args.push(file_name(path));
    let mut answer = Vec::new();
    run(
        path,
        options,
        "ffprobe",
        args,
        options.limits.max_seconds_per_page,
        &mut |output| {
            output.take(MOST_PROBE_BYTES).read_to_end(&mut answer)?;
            Ok(())
        },
    )?;
    parse_probe(&answer).ok_or_else(|| Error::NoFrames {
        path: path.to_path_buf(),
    })
}

/// Hands out the frames of `indices`, which ascend, decoding up to the last of them.
pub(super) fn frames(
    path: &Path,
    options: &OpenOptions,
    indices: &[usize],
    take: &mut dyn FnMut(usize, RgbImage) -> bool,
) -> Result<()> {
    let terms: Vec<String> = indices
        .iter()
        .map(|index| format!("eq(n\\,{index})"))
        .collect();
    let select = format!("select={}", terms.join("+"));
    let mut args = input_args();
    args.extend([OsString::from("-i"), file_name(path)]);
    args.extend(["-vf", &select].map(OsString::from));
    args.extend(output_args(indices.len()));
    let limits = &options.limits;
    let mut wanted = indices.iter();
    run(
        path,
        options,
        "ffmpeg",
        args,
        limits.max_seconds_per_file,
        &mut |output| {
            while let Some(image) = read_picture(output, limits)? {
                let Some(&index) = wanted.next() else { break };
                if !take(index, image) {
                    break;
                }
            }
            Ok(())
        },
    )
}

/// The first frame from `seconds` on.
pub(super) fn frame_at(
    path: &Path,
    options: &OpenOptions,
    seconds: f64,
    take: &mut dyn FnMut(usize, RgbImage) -> bool,
) -> Result<()> {
    let mut args = input_args();
    args.extend([OsString::from("-ss"), format!("{seconds:.3}").into()]);
    args.extend([OsString::from("-i"), file_name(path)]);
    args.extend(output_args(1));
    let limits = &options.limits;
    run(
        path,
        options,
        "ffmpeg",
        args,
        limits.max_seconds_per_page,
        &mut |output| {
            if let Some(image) = read_picture(output, limits)? {
                take(0, image);
            }
            Ok(())
        },
    )
}

/// What both tools are told about their input.
fn input_args() -> Vec<OsString> {
    [
        "-v",
        "error",
        "-threads",
        "2",
        "-protocol_whitelist",
        "file,pipe",
        "-format_whitelist",
        FORMATS,
    ]
    .map(OsString::from)
    .into()
}

/// The first picture stream that is no cover, so many frames of it, as PPM on standard output.
fn output_args(frames: usize) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["-map", "0:V:0", "-fps_mode", "passthrough", "-frames:v"]
        .map(OsString::from)
        .into();
    args.push(frames.to_string().into());
    args.extend(["-f", "image2pipe", "-c:v", "ppm", "pipe:1"].map(OsString::from));
    args
}

/// The file as the tools take it: a name that begins with a dash or holds a colon is still a file.
fn file_name(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

/// Runs a tool and reads its output; what it fails on is told with its last line.
fn run(
    path: &Path,
    options: &OpenOptions,
    tool: &'static str,
    args: Vec<OsString>,
    seconds: u64,
    read: &mut dyn FnMut(&mut dyn BufRead) -> std::io::Result<()>,
) -> Result<()> {
    let limits = &options.limits;
    let command = match &options.worker {
        Some(worker) => {
            let mut all = worker.args.clone();
            let bounds = [limits.worker_memory_bytes.to_string(), seconds.to_string()];
            all.push(EXEC.into());
            all.extend(bounds.map(OsString::from));
            all.push(tool.into());
            all.extend(args);
            WorkerCommand::new(&worker.program, all)
        }
        None => WorkerCommand::new(tool, args),
    };
    let missing = || Error::NoVideoTool {
        path: path.to_path_buf(),
        tool,
    };
    let (mut process, input, mut output) = match Process::spawn(&command) {
        Ok(started) => started,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
        Err(reason) => {
            return Err(Error::WorkerStart {
                path: path.to_path_buf(),
                program: command.program,
                reason,
            });
        }
    };
    // It reads nothing from here.
    drop(input);
    process.set_deadline(seconds);
    let done = read(&mut output);
    let all_read = done.is_ok() && matches!(output.fill_buf(), Ok([]));
    let fail = |reason| Error::Open {
        path: path.to_path_buf(),
        reason,
    };
    if let Err(error) = &done
        && error.kind() == std::io::ErrorKind::InvalidData
    {
        return Err(fail(Trouble::BadAnswer {
            found: error.to_string(),
        }));
    }
    if done.is_ok() && !all_read {
        // Enough was seen; dropping the process ends it.
        return Ok(());
    }
    match process.exit() {
        Some(status) if status.success() && done.is_ok() => Ok(()),
        Some(status) if status.code() == Some(i32::from(NOT_THERE)) => Err(missing()),
        Some(_) | None => Err(fail(process.post_mortem(&Limits {
            max_seconds_per_page: seconds,
            ..limits.clone()
        }))),
    }
}

/// A binary PPM picture, or nothing at the end.
fn read_picture(from: &mut dyn BufRead, limits: &Limits) -> std::io::Result<Option<RgbImage>> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    if from.fill_buf()?.is_empty() {
        return Ok(None);
    }
    // `P6`, width, height and 255, each followed by one white space.
    let mut words = Vec::new();
    let mut word = String::new();
    while words.len() < 4 {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        if byte[0].is_ascii_whitespace() {
            words.push(std::mem::take(&mut word));
        } else if word.len() < 8 {
            word.push(char::from(byte[0]));
        } else {
            return Err(bad("a picture without a header"));
        }
    }
    let side = |at: usize| words[at].parse::<u32>().ok().filter(|&side| side > 0);
    let (Some(width), Some(height), "P6", "255") =
        (side(1), side(2), words[0].as_str(), words[3].as_str())
    else {
        return Err(bad("a picture without a header"));
    };
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.max_pixels {
        return Err(bad("a frame with too many pixels"));
    }
    let mut bytes = vec![0; pixels as usize * 3];
    from.read_exact(&mut bytes)?;
    Ok(RgbImage::from_raw(width, height, bytes))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    streams: Vec<Stream>,
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Stream {
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
    nb_read_packets: Option<String>,
    duration: Option<String>,
}

#[derive(Deserialize)]
struct Format {
    duration: Option<String>,
}

/// Frames and rate from `ffprobe`'s answer; `None` without frames of video.
fn parse_probe(answer: &[u8]) -> Option<Probed> {
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let stream = answer.streams.first()?;
    let num_frames: usize = stream.nb_read_packets.as_deref()?.parse().ok()?;
    let positive = |number: f64| (number.is_finite() && number > 0.0).then_some(number);
    let seconds = |text: &Option<String>| positive(text.as_deref()?.parse().ok()?);
    let rate = |text: &Option<String>| {
        let (above, below) = text.as_deref()?.split_once('/')?;
        positive(above.parse::<f64>().ok()? / below.parse::<f64>().ok()?)
    };
    let by_length = || {
        let format = answer.format.as_ref();
        let length = seconds(&stream.duration).or_else(|| seconds(&format?.duration))?;
        positive(num_frames as f64 / length)
    };
    let fps = rate(&stream.avg_frame_rate)
        .or_else(by_length)
        .or_else(|| rate(&stream.r_frame_rate))
        .unwrap_or(1.0);
    (num_frames > 0).then_some(Probed { num_frames, fps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_ffprobe_is_read() {
        let probe = |text: &str| parse_probe(text.as_bytes()).map(|p| (p.num_frames, p.fps));
        let stream = |fields: &str| {
            format!(
                r#"{{"streams": [{{"nb_read_packets": "50", {fields}}}], "format": {{"duration": "4.0"}}}}"#
            )
        };
        assert_eq!(
            probe(&stream(r#""avg_frame_rate": "30000/1000""#)),
            Some((50, 30.0))
        );
        // Without a usable rate, by the length; of the stream first.
        assert_eq!(
            probe(&stream(r#""avg_frame_rate": "0/0""#)),
            Some((50, 12.5))
        );
        assert_eq!(
            probe(&stream(r#""avg_frame_rate": "0/0", "duration": "2""#)),
            Some((50, 25.0))
        );
        for nothing in [
            "",
            "{}",
            r#"{"streams": []}"#,
            r#"{"streams": [{"nb_read_packets": "0"}]}"#,
        ] {
            assert_eq!(probe(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn pictures_are_read_one_after_the_other_and_hostile_ones_refused() {
        let limits = Limits {
            max_pixels: 6,
            ..Limits::default()
        };
        let read = |bytes: &[u8]| {
            let mut from = bytes;
            let mut sizes = Vec::new();
            while let Some(image) = read_picture(&mut from, &limits)? {
                sizes.push(image.dimensions());
            }
            std::io::Result::Ok(sizes)
        };
        let two = [&b"P6\n2 1\n255\nabcdef"[..], b"P6\n1 1\n255\nxyz"].concat();
        assert_eq!(read(&two).unwrap(), [(2, 1), (1, 1)]);
        let bad: [&[u8]; 6] = [
            b"P5\n2 1\n255\nab",
            b"P6\n99999 99999\n255\n",
            b"P6\n0 1\n255\n",
            b"P6 123456789",
            b"P6\n2 1\n255\nabc",
            b"P6\n7 1\n255\n",
        ];
        for bytes in bad {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
