//! Finds the libraries that the CUDA execution provider needs, and explains its failures.
//!
//! `onnxruntime-gpu` contains the provider, but not the CUDA libraries. These are looked for
//!
//! 1. in the `nvidia-…` packages of the Python environment that ONNX Runtime is from,
//! 2. in the folder of ONNX Runtime itself,
//! 3. by the system's own search.
//!
//! The system does not search the packages, so that their libraries must be loaded before the provider.

use std::path::{Path, PathBuf};
use std::sync::Once;

use super::runtime::Runtime;

/// A library that the provider needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needed {
    /// The name without a version: `libcublas`.
    pub name: &'static str,
    /// Where it was found; `None` if that is left to the system's search.
    pub path: Option<PathBuf>,
}

/// Finds the files of the CUDA execution provider beside ONNX Runtime's library; none in a build without it.
///
/// `runtime` is the path of that library.
#[must_use]
pub fn provider_files(runtime: &Path) -> Vec<PathBuf> {
    let folder = runtime.parent().unwrap_or(Path::new("."));
    let files = ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"].map(|f| folder.join(f));
    if files.iter().all(|file| file.is_file()) { files.to_vec() } else { Vec::new() }
}

/// Finds the libraries that the provider of `runtime` needs; each follows those that it depends on.
#[must_use]
pub fn libraries(runtime: &Path) -> Vec<Needed> {
    let folders = folders(runtime);
    let find = |name: &'static str| {
        let is_it = |path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".so"))
        };
        let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        // An environment may have several; the newest has the greatest name.
        Needed { name, path: entries.map(|entry| entry.path()).filter(is_it).max() }
    };
    NEEDED.into_iter().map(find).collect()
}

/// Lists the folders of the `nvidia-…` packages beside that of `onnxruntime`, then that of ONNX Runtime.
fn folders(runtime: &Path) -> Vec<PathBuf> {
    let capi = runtime.parent().unwrap_or(Path::new("."));
    let site_packages = capi.parent().and_then(Path::parent).unwrap_or(capi);
    let pattern = format!("{}/nvidia/*/lib", glob::Pattern::escape(&site_packages.display().to_string()));
    let mut folders: Vec<_> = glob::glob(&pattern).into_iter().flatten().flatten().collect();
    folders.push(capi.to_owned());
    folders
}

/// Loads the libraries that were found, once a process. The provider reports those that cannot be loaded.
pub(crate) fn preload(runtime: &Runtime) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for path in libraries(&runtime.path).into_iter().filter_map(|needed| needed.path) {
            let _ = ort::util::preload_dylib(&path);
        }
    });
}

/// Explains a provider's failure, and says what to do.
pub(crate) fn in_plain_words(reason: &str, runtime: &Runtime) -> String {
    let packages = "install the packages that onnxruntime-gpu names: pip install \"onnxruntime-gpu[cuda,cudnn]\"";
    let has = |text: &str| reason.contains(text);
    let missing = reason
        .split_whitespace()
        .map(|word| word.trim_matches([':', ',', '`', '\'', '"', '(', ')']))
        .find(|word| word.starts_with("lib") && word.contains(".so") && !word.contains("onnxruntime"));
    if provider_files(&runtime.path).is_empty() {
        return format!(
            "`{}` is a build for the processor alone; install onnxruntime-gpu, or name its library as encode.runtime",
            runtime.path.display()
        );
    }
    if has("libonnxruntime_providers_tensorrt.so: cannot open shared object file") {
        return "this build of ONNX Runtime has no TensorRT provider; install onnxruntime-gpu with TensorRT, or leave \
                tensorrt out of encode.providers"
            .into();
    }
    match missing {
        Some("libcuda.so.1") => {
            "there is no NVIDIA driver (libcuda.so.1); install it, or run on a machine with a GPU".into()
        }
        Some(library) if has("cannot open shared object file") => format!("{library} is missing; {packages}"),
        Some(library) if has("undefined symbol") || has("version `") => {
            format!("{library} is of another version than the provider needs; {packages}")
        }
        _ if has("driver version is insufficient") => {
            format!("the NVIDIA driver is too old for this build's CUDA; update the driver. It said: {reason}")
        }
        _ if has("no CUDA-capable device") || has("CUDA failure 100") => {
            "the driver sees no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES".into()
        }
        _ if has("invalid device ordinal") || has("CUDA failure 101") => {
            "there is no GPU of that number; look at encode.cuda.devices and nvidia-smi".into()
        }
        _ => reason.to_owned(),
    }
}

/// The libraries, each after those that it depends on.
const NEEDED: [&str; 16] = [
    "libcudart",
    "libnvJitLink",
    "libcublasLt",
    "libcublas",
    "libcurand",
    "libcufft",
    "libnvrtc",
    "libcudnn_graph",
    "libcudnn_engines_runtime_compiled",
    "libcudnn_engines_precompiled",
    "libcudnn_heuristic",
    "libcudnn_ops",
    "libcudnn_cnn",
    "libcudnn_adv",
    "libcudnn",
    "libnvinfer",
];
