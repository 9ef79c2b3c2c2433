//! All that was found, ours and torch's, side by side.

use serde_json::{Value, json};

use super::{Check, Outcome};

pub fn run(check: &Check) -> Outcome {
    let read = |name: &str| -> Outcome<Value> {
        let path = check.out.join(name);
        Ok(if path.is_file() { serde_json::from_slice(&std::fs::read(path)?)? } else { Value::Null })
    };
    let (ours, torch, machine) = (read("ours.json")?, read("torch.json")?, read("machine.json")?);
    let mut lines = Vec::new();
    let mut failed = 0;
    let mut verdict = |name: String, value: &Value, detail: String| {
        let fine = value["as_wanted"] == true;
        failed += usize::from(!fine);
        lines.push(format!("{name:<44}{:<10}{detail}", if fine { "yes" } else { "NO" }));
    };
    for part in ["placement", "agreement", "encode", "graph"] {
        if let Some(error) = ours[part]["error"].as_str() {
            verdict(part.into(), &Value::Null, error.to_owned());
        }
    }
    for (shape, value) in entries(&ours["placement"]) {
        verdict(format!("all of {shape} on {}", text(&ours["provider"])), value, format!("strays {}", value["strays"]));
    }
    for (name, value) in entries(&ours["agreement"]) {
        verdict(format!("{name} as on the processor"), value, format!("1 - cosine {}", value["one_minus_cosine"]));
    }
    for (name, value) in entries(&ours["graph"]).filter(|(name, _)| name.starts_with("agreement")) {
        let detail = format!("other neighbors {}", value["other_neighbors"]);
        verdict(format!("graph {} as by kernels", name.replace("agreement-", "")), value, detail);
    }
    lines.push(format!("\n{:<44}{:>12}{:>12}{:>10}", "", "ours", "torch", "ratio"));
    let mut measured = |name: String, ours: &Value, torch: &Value, larger_is_better: bool| {
        let ratio = ours.as_f64().zip(torch.as_f64()).map(|(o, t)| if larger_is_better { o / t } else { t / o });
        let number = |value: Option<f64>| {
            value.map_or("-".into(), |v| if v < 100.0 { format!("{v:.3}") } else { format!("{v:.0}") })
        };
        let (ours, torch) = (number(ours.as_f64()), number(torch.as_f64()));
        lines.push(format!("{name:<44}{ours:>12}{torch:>12}{:>10}", number(ratio)));
    };
    for (shape, value) in entries(&ours["encode"]) {
        let theirs = &torch["encode"][shape];
        measured(format!("{shape} samples/s"), &value["samples_per_second"], &theirs["samples_per_second"], true);
        // Against one large product in f16: the share of the peak.
        let (of_products, peak) = (&value["tera_operations_per_second"], &torch["peak_tera_operations_per_second"]);
        measured(format!("{shape} tera-operations/s, peak"), of_products, peak, true);
    }
    for (name, value) in entries(&ours["graph"]).filter(|(name, _)| name.starts_with('d')) {
        let d = name.split('-').next().unwrap_or_default();
        let theirs = &torch["graph"][d];
        measured(format!("graph {name} s"), &value["seconds"], &theirs["blocks_of_1024"]["and_back"], false);
        measured("  blocks of 72".into(), &value["seconds"], &theirs["blocks_of_72"]["and_back"], false);
        measured("  torch on the device alone".into(), &value["seconds"], &theirs["blocks_of_1024"]["there"], false);
    }
    for (share, value) in entries(&torch["training"]["slowdown_percent"]) {
        measured(format!("training slower by %, share {share}"), value, &Value::Null, false);
    }
    if torch.is_null() {
        lines.push("\ntorch is not there, or did not run: nothing to compare with".into());
    }
    lines.iter().for_each(|line| println!("{line}"));
    let all = json!({ "machine": machine, "ours": ours, "torch": torch, "failed": failed });
    std::fs::write(check.out.join("gpu-check.json"), serde_json::to_string_pretty(&all)?)?;
    if failed > 0 { Err(format!("{failed} checks failed").into()) } else { Ok(()) }
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "error")
        .map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
