//! `cargo xtask golden`: runs `tools/golden/make.py`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs one job, or all.
pub(crate) fn run(root: &Path, args: &[&str]) -> Result<()> {
    let (python, jobs) = parse(args)?;
    let status = Command::new(python)
        .current_dir(root)
        .arg("tools/golden/make.py")
        .args(jobs)
        .status()
        .with_context(|| format!("`{python}` could not be started; name another with --python"))?;
    if !status.success() {
        bail!(
            "`tools/golden/make.py` failed ({status}); what it needs is in tools/golden/requirements.txt"
        );
    }
    Ok(())
}

/// The Python program and the jobs.
fn parse<'a>(args: &[&'a str]) -> Result<(&'a str, Vec<&'a str>)> {
    let (mut python, mut jobs) = ("python3", Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--python" => python = args.next().context("`--python` needs a program")?,
            option if option.starts_with('-') => bail!("`{option}` is not an option of golden"),
            job => jobs.push(job),
        }
    }
    Ok((python, jobs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_may_stand_on_either_side_of_the_job() {
        assert_eq!(parse(&[]).unwrap(), ("python3", vec![]));
        assert_eq!(
            parse(&["networks", "--python", "py"]).unwrap(),
            ("py", vec!["networks"])
        );
        assert_eq!(
            parse(&["--python", "py", "networks"]).unwrap(),
            ("py", vec!["networks"])
        );
        assert!(parse(&["--python"]).is_err());
        assert!(parse(&["--fast"]).is_err());
    }
}
