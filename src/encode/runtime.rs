//! Finds ONNX Runtime's shared library and loads it, once a process.
//!
//! It is searched for in this order:
//!
//! 1. the setting `encode.runtime`;
//! 2. the variable `ORT_DYLIB_PATH`;
//! 3. `onnxruntime` or `onnxruntime-gpu` in the active Python environment (`VIRTUAL_ENV`, `CONDA_PREFIX`, else that of
//!    the `python3` on the path);
//! 4. the project's own copy: `.onnxruntime/` in the working directory, above it, or above the executable;
//! 5. the system's library folders.
//!
//! The first two name a file, which is used or is an error. Version 1.24 or later is needed. The library that is loaded
//! first remains for the life of the process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

use crate::error::{OnnxRuntimeError, Result};
use crate::telemetry;

/// A loaded ONNX Runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    environment: Environment,
    /// The file of the library.
    pub path: PathBuf,
    /// Which step of the search found it.
    pub found_by: &'static str,
}

impl Runtime {
    /// Finds and loads the library, or returns the one that is already loaded.
    ///
    /// # Errors
    /// [`OnnxRuntimeError::Missing`] with all places where it was looked for; [`OnnxRuntimeError::Load`] if the file
    /// is not ONNX Runtime, is too old, or another one than `explicit` is already loaded.
    pub fn load(explicit: Option<&Path>) -> Result<Self> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return runtime.agrees_with(explicit);
        }
        let (path, found_by) = find(explicit)?;
        let failed = |cause| OnnxRuntimeError::Load { path: path.clone(), cause };
        let builder = ort::init_from(&path).map_err(|e| failed(e.to_string().into()))?;
        let environment = builder.with_name("prosampler").build().map_err(|e| failed(e.message().to_owned().into()))?;
        telemetry::runtime_loaded(&path, found_by);
        Ok(loaded.insert(Self { environment, path, found_by }).clone())
    }

    /// Returns ONNX Runtime's environment, of which a process can have only one.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    fn agrees_with(&self, explicit: Option<&Path>) -> Result<Self> {
        let same = |path: &Path| path.canonicalize().ok() == self.path.canonicalize().ok();
        match explicit {
            Some(path) if !same(path) => {
                let cause = format!("this process has already loaded `{}`", self.path.display()).into();
                Err(OnnxRuntimeError::Load { path: path.into(), cause }.into())
            }
            _ => Ok(self.clone()),
        }
    }
}

/// Finds the file of the library, and says how it was found.
///
/// # Errors
/// [`OnnxRuntimeError::Missing`] with all places where it was looked for.
pub fn find(explicit: Option<&Path>) -> Result<(PathBuf, &'static str)> {
    if let Some(path) = explicit {
        return named(path, "encode.runtime");
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        return named(Path::new(&path), "ORT_DYLIB_PATH");
    }
    let mut looked = vec!["encode.runtime: not set".to_owned(), "ORT_DYLIB_PATH: not set".to_owned()];
    let steps: [Step; 3] = [
        ("the active Python environment", python_folders),
        ("the project's own copy", project_folders),
        ("the system", system_folders),
    ];
    for (step, folders) in steps {
        let folders = folders();
        if let Some(path) = folders.iter().find_map(|folder| library_in(folder)) {
            return Ok((path, step));
        }
        let list: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
        looked.push(format!("{step}: {}", if list.is_empty() { "there is none".into() } else { list.join(", ") }));
    }
    Err(OnnxRuntimeError::Missing { looked }.into())
}

/// The name of a search step, and the folders that it searches.
type Step = (&'static str, fn() -> Vec<PathBuf>);

/// Checks that a file that was named exists.
fn named(path: &Path, step: &'static str) -> Result<(PathBuf, &'static str)> {
    if path.is_file() {
        return Ok((path.to_owned(), step));
    }
    Err(OnnxRuntimeError::Missing { looked: vec![format!("{step}: `{}`, which is no file", path.display())] }.into())
}

/// Finds the newest library in a folder: `libonnxruntime.so.1.32.0`, `libonnxruntime.dylib` or `onnxruntime.dll`.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unix = name.starts_with("libonnxruntime.") && (name.contains(".so") || name.ends_with(".dylib"));
        (unix || name == "onnxruntime.dll") && path.is_file()
    };
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
    entries.filter(is_library).max()
}

fn python_folders() -> Vec<PathBuf> {
    let mut site_packages = Vec::new();
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        let Some(prefix) = std::env::var_os(variable).map(PathBuf::from) else { continue };
        let pattern = format!("{}/lib/python3*/site-packages", glob::Pattern::escape(&prefix.display().to_string()));
        site_packages.extend(glob::glob(&pattern).into_iter().flatten().flatten());
        site_packages.push(prefix.join("Lib").join("site-packages"));
    }
    if site_packages.is_empty() {
        let ask = "import sysconfig; print(sysconfig.get_path('platlib'))";
        let asked = Command::new("python3").args(["-I", "-c", ask]).output();
        let answer = asked.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        site_packages.extend(answer.map(|a| PathBuf::from(a.trim())));
    }
    // onnxruntime and onnxruntime-gpu install the same folder.
    site_packages.into_iter().map(|s| s.join("onnxruntime").join("capi")).collect()
}

fn project_folders() -> Vec<PathBuf> {
    let executable = std::env::current_exe().ok();
    let starts = [std::env::current_dir().ok(), executable.and_then(|e| e.parent().map(Path::to_owned))];
    let mut folders: Vec<_> = starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join(".onnxruntime"))
        .filter(|folder| folder.is_dir())
        .collect();
    folders.dedup();
    folders
}

fn system_folders() -> Vec<PathBuf> {
    let fixed = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/homebrew/lib"].map(PathBuf::from);
    let multiarch = glob::glob("/usr/lib/*-linux-gnu").into_iter().flatten().flatten();
    fixed.into_iter().chain(multiarch).filter(|folder| folder.is_dir()).collect()
}

static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);
