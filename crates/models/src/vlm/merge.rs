//! Where pictures enter the text.

use candle_core::Tensor;

use crate::{Error, Result, text::llama::Llama};

/// Token embeddings of `ids` with the rows of `image` replaced, in order, by the visual tokens: `(1, tokens, hidden)`.
///
/// # Errors
/// [`Error::ImageTokens`] when their numbers differ.
pub(super) fn merge(
    text: &Llama,
    ids: &[u32],
    image: u32,
    visual: Option<&Tensor>,
) -> Result<Tensor> {
    let num_ids = ids.iter().filter(|&&id| id == image).count();
    let num_visual = visual.map_or(Ok(0), |visual| visual.dim(0))?;
    if num_ids != num_visual {
        return Err(Error::ImageTokens {
            ids: num_ids,
            visual: num_visual,
        });
    }
    let embedded = text.embed(ids)?; // (tokens, hidden)
    let Some(visual) = visual else {
        return Ok(embedded.unsqueeze(0)?);
    };
    let visual = visual.to_dtype(embedded.dtype())?;
    // Runs of equal kind are copied as a whole: a tile's tokens are one run.
    let mut parts = Vec::new();
    let (mut start, mut used) = (0, 0);
    while start < ids.len() {
        let is_image = ids[start] == image;
        let len = ids[start..]
            .iter()
            .take_while(|&&id| (id == image) == is_image)
            .count();
        if is_image {
            parts.push(visual.narrow(0, used, len)?);
            used += len;
        } else {
            parts.push(embedded.narrow(0, start, len)?);
        }
        start += len;
    }
    Ok(Tensor::cat(&parts, 0)?.unsqueeze(0)?)
}
