//! `colibri embed`: the rows of pages or queries, for other programs.
//!
//! safetensors: one f32 tensor `(rows, dim)` for each input, named `page-1`, `page-2`, … or `query-1`, …, and
//! what made them as metadata. npy: the same for a single input.

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
};

use colibri_engine::{
    checkpoints::LoadedRetriever,
    document::{Document, RenderSize},
    picture,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;

use crate::{
    Outcome,
    args::Reading,
    context::Context,
    error::{Error, Result},
    interrupt::Listening,
    text,
};

/// Arguments of `embed`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct Args {
    /// A picture as a page; may be given several times
    #[arg(long, value_name = "FILE", group = "input")]
    image: Vec<PathBuf>,
    /// All pages of a document
    #[arg(long, value_name = "DOCUMENT", group = "input")]
    pages: Option<PathBuf>,
    /// A query; may be given several times
    #[arg(long, value_name = "TEXT", group = "input")]
    query: Vec<String>,
    /// Where to, ending in .safetensors or .npy
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    reading: Reading,
}

enum Format {
    Safetensors,
    Npy,
}

/// The rows of one input.
struct Rows {
    name: String,
    dim: usize,
    values: Vec<f32>,
}

impl Rows {
    fn shape(&self) -> [usize; 2] {
        [self.values.len() / self.dim.max(1), self.dim]
    }

    fn bytes(&self) -> Vec<u8> {
        self.values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no retriever, an input cannot be read, or the file cannot be written.
pub(crate) fn run(context: &Context, args: &Args) -> Result<Outcome> {
    let format = match args.output.extension().and_then(|end| end.to_str()) {
        Some("safetensors") => Format::Safetensors,
        Some("npy") => Format::Npy,
        _ => {
            return Err(Error::RowsFormat {
                path: args.output.clone(),
            });
        }
    };
    let models = context.models()?;
    let retriever = context.need_retriever(&models)?;
    let listening = context.interrupt.listen()?;
    let embed = Embed {
        context,
        args,
        retriever: &retriever,
        listening: &listening,
    };
    let rows = embed.all()?;
    context.screen.hide_bar();
    let bytes = match format {
        Format::Safetensors => safetensors(&rows, &retriever, &args.output)?,
        Format::Npy => match rows.as_slice() {
            [rows] => npy(rows),
            rows => {
                return Err(Error::OneArray {
                    path: args.output.clone(),
                    inputs: rows.len(),
                });
            }
        },
    };
    write(&args.output, &bytes)?;
    let tensors: Vec<_> = rows
        .iter()
        .map(|rows| json!({"name": rows.name, "shape": rows.shape()}))
        .collect();
    if context.screen.json {
        context
            .screen
            .json(&json!({"output": args.output, "tensors": tensors}))?;
    } else {
        for rows in &rows {
            let [count, dim] = rows.shape();
            context
                .screen
                .line(&format!("{}: {count} rows of {dim}", rows.name))?;
        }
    }
    Ok(Outcome::Done)
}

struct Embed<'a> {
    context: &'a Context,
    args: &'a Args,
    retriever: &'a LoadedRetriever,
    listening: &'a Listening<'a>,
}

impl Embed<'_> {
    fn all(&self) -> Result<Vec<Rows>> {
        let mut all = Vec::new();
        for (number, query) in self.args.query.iter().enumerate() {
            let rows = self
                .retriever
                .model
                .embed_query(query)
                .map_err(colibri_engine::Error::from)?;
            all.push(Rows {
                name: format!("query-{}", number + 1),
                dim: rows.dim,
                values: rows.values,
            });
        }
        for (number, path) in self.args.image.iter().enumerate() {
            let image = picture::open(path, &self.args.reading.limits())?;
            all.push(self.page(number + 1, self.args.image.len(), &image)?);
        }
        if let Some(path) = &self.args.pages {
            let mut document = Document::open(path, &self.args.reading.open_options()?)?;
            let size = RenderSize {
                longest_edge: self.retriever.model.settings().longest_edge,
            };
            for number in 1..=document.num_pages() {
                let page = document.page(number, &size)?;
                all.push(self.page(number, document.num_pages(), &page.image)?);
            }
        }
        Ok(all)
    }

    fn page(&self, number: usize, of: usize, image: &picture::RgbImage) -> Result<Rows> {
        self.context.screen.status(&format!(
            "looking at page {number} of {}",
            text::count(of, "page")
        ));
        let mut go_on = |_, _| !self.listening.is_stopped();
        let page = self.retriever.model.embed_page(image, &mut go_on);
        let rows = page.map_err(|error| {
            if self.listening.is_stopped() {
                colibri_engine::Error::Cancelled
            } else {
                error.into()
            }
        })?;
        Ok(Rows {
            name: format!("page-{number}"),
            dim: rows.rows.dim,
            values: rows.rows.values,
        })
    }
}

fn safetensors(rows: &[Rows], retriever: &LoadedRetriever, path: &Path) -> Result<Vec<u8>> {
    let fault = |source| Error::Safetensors {
        path: path.to_owned(),
        source,
    };
    let bytes: Vec<Vec<u8>> = rows.iter().map(Rows::bytes).collect();
    let views = rows.iter().zip(&bytes).map(|(rows, bytes)| {
        let view = TensorView::new(Dtype::F32, rows.shape().to_vec(), bytes)?;
        Ok((rows.name.clone(), view))
    });
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(fault)?;
    let settings = retriever.index_settings();
    let said = [
        ("retriever", settings.retriever),
        ("revision", settings.revision),
        ("prompt_version", settings.prompt_version),
        ("precision", settings.precision),
    ];
    let metadata: HashMap<String, String> = said
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    safetensors::serialize(views, Some(metadata)).map_err(fault)
}

/// Version 1.0 of the format (numpy/lib/format.py): magic, header length, a Python literal padded so that
/// the data begin at a multiple of 64.
fn npy(rows: &Rows) -> Vec<u8> {
    let [count, dim] = rows.shape();
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {dim}), }}");
    let before = 10 + header.len() + 1;
    header.push_str(&" ".repeat(before.next_multiple_of(64) - before));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.bytes());
    bytes
}

/// Under another name first, so that a file of this name is always whole.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = "write the rows";
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let named = |source: std::io::Error| {
        let text = format!("`{}`: {source}", path.display());
        Error::file(doing)(std::io::Error::new(source.kind(), text))
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(named)?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(named)?;
    file.persist(path).map_err(|error| named(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_is_laid_out_as_numpy_reads_it() {
        let rows = Rows {
            name: "page-1".to_owned(),
            dim: 2,
            values: vec![1.0, -2.0, 0.5, 4.0, 5.0, 6.0],
        };
        let bytes = npy(&rows);
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!((10 + length) % 64, 0);
        let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
        assert!(
            header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"),
            "{header}"
        );
        assert!(header.ends_with('\n'));
        assert_eq!(&bytes[10 + length..14 + length], 1.0_f32.to_le_bytes());
        assert_eq!(bytes.len(), 10 + length + 24);
    }
}
