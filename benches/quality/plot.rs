//! Pictures of the tables.

use std::fmt::Write as _;

use crate::data::Epoch;
use crate::dials::Dial;

/// In-batch similarity over an epoch, a line for each sampler.
pub fn course(curves: &[(&str, Epoch)]) -> String {
    const POINTS: usize = 40;
    const COLORS: [&str; 3] = ["#d95f02", "#7570b3", "#666666"];
    let means = |epoch: &Epoch| -> Vec<f64> {
        (0..POINTS).map(|i| epoch.mean(i as f64 / POINTS as f64, (i + 1) as f64 / POINTS as f64)[0]).collect()
    };
    let lines: Vec<_> = curves.iter().map(|(name, epoch)| (name, means(epoch))).collect();
    let high = lines.iter().flat_map(|(_, line)| line).fold(0f64, |high, &y| high.max(y)) * 1.05;
    let (x, y) =
        (|i: usize| 60.0 + 560.0 * (i as f64 + 0.5) / POINTS as f64, |s: f64| 260.0 - 230.0 * s.max(0.0) / high);
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 310\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"720\" height=\"310\" fill=\"white\"/>\n",
    );
    for step in 0..=4 {
        let s = high * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            "<path d=\"M60 {0:.0}H620\" stroke=\"#ddd\"/><text x=\"20\" y=\"{1:.0}\">{s:.2}</text>",
            y(s),
            y(s) + 4.0
        );
    }
    for (at, (name, line)) in lines.iter().enumerate() {
        let points: Vec<_> = line.iter().enumerate().map(|(i, &s)| format!("{:.1},{:.1}", x(i), y(s))).collect();
        let color = COLORS[at % COLORS.len()];
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        let end = y(line[POINTS - 1]) + 4.0;
        let _ = writeln!(svg, "<text x=\"628\" y=\"{end:.0}\" fill=\"{color}\">{name}</text>");
    }
    svg.push_str(
        "<text x=\"240\" y=\"295\">mean in-batch similarity over an epoch, from start to end</text>\n</svg>\n",
    );
    svg
}

/// What each value of a dial does: bars of the similarity that mini-batches gain on uniform ones, and of the share of
/// pairs with the same label.
pub fn dial(dial: &Dial, uniform: [f64; 2]) -> String {
    const COLORS: [&str; 2] = ["#d95f02", "#7570b3"];
    let highest = |i: usize| dial.rows.iter().map(|row| row.mean[i]).fold(uniform[i], f64::max) * 1.1;
    let high = [highest(0), highest(1)];
    let width = 360.0 / dial.rows.len() as f64;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 270\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"860\" height=\"270\" fill=\"white\"/>\n",
    );
    for (i, title) in ["mean in-batch similarity", "pairs with the same label"].into_iter().enumerate() {
        let left = 40.0 + 420.0 * i as f64;
        let y = |value: f64| 220.0 - 180.0 * value.max(0.0) / high[i];
        let text = |value: f64| if i == 0 { format!("{value:.3}") } else { format!("{:.1} %", 100.0 * value) };
        let _ = writeln!(svg, "<text x=\"{left:.0}\" y=\"20\">{title}</text>");
        for (at, row) in dial.rows.iter().enumerate() {
            let x = left + width * at as f64;
            let (top, color, middle) = (y(row.mean[i]), COLORS[i], x + width / 2.0);
            let height = 220.0 - top;
            let bar = width * 0.7;
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{bar:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>\
                 <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
                 <text x=\"{middle:.1}\" y=\"236\" text-anchor=\"middle\">{}</text>",
                x + width * 0.15,
                top - 4.0,
                text(row.mean[i]),
                row.value
            );
        }
        let base = y(uniform[i]);
        let _ = writeln!(
            svg,
            "<path d=\"M{left:.0} {base:.1}h360\" stroke=\"#333\" stroke-dasharray=\"4 3\"/>\
             <text x=\"{left:.0}\" y=\"256\" fill=\"#333\">{}; dashed: uniform, {}</text>",
            dial.name,
            text(uniform[i])
        );
    }
    svg.push_str("</svg>\n");
    svg
}
