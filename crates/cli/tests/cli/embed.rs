//! Rows in files that other programs read.

use safetensors::SafeTensors;

use crate::{
    models::run,
    support::{Home, snapshot},
};

#[test]
fn embed_writes_rows() {
    let home = Home::new();
    let retriever = home.retriever();
    let embed = |more: &[&str]| {
        run(
            &home,
            &[&["embed", "--retriever", &retriever], more].concat(),
        )
    };
    embed(&["--pages", "documents/report.pdf", "-o", "pages.safetensors"]).exits(0);
    let bytes = fs_err::read(home.path("pages.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<_> = file.names().into_iter().map(str::to_owned).collect();
    found.sort();
    assert_eq!(found, ["page-1", "page-2"]);
    let page = file.tensor("page-1").unwrap();
    assert_eq!(page.dtype(), safetensors::Dtype::F32);
    let (rows, dim) = (page.shape()[0], page.shape()[1]);
    assert!(rows > 16 && dim == 128);
    for row in page.data().chunks_exact(4 * dim) {
        let squares: f32 = row
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()).powi(2))
            .sum();
        assert!((squares - 1.0).abs() < 1e-4, "{squares}");
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["precision"], "f32");

    let said = embed(&[
        "--query",
        "Who?",
        "--query",
        "When?",
        "-o",
        "queries.safetensors",
        "--json",
    ])
    .exits(0);
    assert_eq!(said.last()["tensors"][1]["name"], "query-2");
    // One query as numpy reads it, with the same numbers.
    embed(&["--query", "Who?", "-o", "query.npy"]).exits(0);
    let npy = fs_err::read(home.path("query.npy")).unwrap();
    assert!(npy.starts_with(b"\x93NUMPY\x01\x00"));
    let start = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let bytes = fs_err::read(home.path("queries.safetensors")).unwrap();
    assert_eq!(
        &npy[start..],
        SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensor("query-1")
            .unwrap()
            .data()
    );

    embed(&[
        "--image",
        "documents/chart.png",
        "--image",
        "documents/chart.png",
        "-o",
        "images.safetensors",
    ])
    .exits(0);
    snapshot!(embed(&["--pages", "documents/report.pdf", "-o", "pages.npy"]), @r"
    exit code 1
    ----- err -----
    error: `pages.npy` can hold the rows of one page or query, not of 2

    hint: name a `.safetensors` file, which holds many
    ");
    snapshot!(embed(&["--query", "x", "-o", "rows.txt"]), @r"
    exit code 1
    ----- err -----
    error: `rows.txt` ends neither in `.safetensors` nor in `.npy`

    hint: name a file such as `rows.safetensors` or `rows.npy`
    ");
    snapshot!(embed(&["-o", "rows.npy"]), @r"
    exit code 1
    ----- err -----
    error: the following required arguments were not provided:
      <--image <FILE>|--pages <DOCUMENT>|--query <TEXT>>

    Usage: colibri embed --output <FILE> --retriever <MODEL> --precision <auto|f32|bf16|int8|int4> --detail <N> <--image <FILE>|--pages <DOCUMENT>|--query <TEXT>>

    For more information, try '--help'.
    ");
    snapshot!(home.run(["embed", "--query", "x", "-o", "x.npy"]), @r"
    exit code 1
    ----- err -----
    error: this needs a retriever, and `none` was asked for

    hint: leave `--retriever` out, or name a folder or a hub model with it
    ");
    assert!(!home.path("pages.npy").exists());
}
