//! The plots of pages, as SVG in their colors.

use kuva::prelude::*;
use maud::PreEscaped;

use crate::report::{GraphFacts, Hardness};

/// A point of a plot.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Point {
    pub x: f64,
    pub y: f64,
    /// Empty for a point that is one of many.
    pub label: &'static str,
    /// Drawn in gray.
    pub is_refused: bool,
}

/// Numbers plots, whose parts must have names of their own within a page.
#[derive(Debug, Default)]
pub(in crate::cli) struct Plots {
    drawn: usize,
}

impl Plots {
    /// How the similarities of pairs are distributed, a line for each sampler.
    pub fn distributions(&mut self, hardness: &[Hardness]) -> PreEscaped<String> {
        let lines = hardness.iter().zip(COLORS).map(|(of, color)| {
            let bins = of.pairs.edges.windows(2).zip(&of.pairs.shares);
            let density = bins.map(|(edges, &share)| {
                let width = f64::from(edges[1] - edges[0]).max(f64::MIN_POSITIVE);
                (f64::from(edges[0] + edges[1]) / 2.0, share / width)
            });
            line(color).with_data(density).with_fill().with_fill_opacity(0.12).into()
        });
        let plots: Vec<Plot> = lines.collect();
        let layout = layout(&plots, "similarity of two samples of a mini-batch", "density");
        self.draw(plots, layout)
    }

    /// In-batch similarity from the first mini-batch to the last, a line for each sampler.
    pub fn course(&mut self, hardness: &[Hardness]) -> PreEscaped<String> {
        let lines = hardness.iter().zip(COLORS).map(|(of, color)| {
            let points = of.similarity.len().min(POINTS);
            let means = (0..points).map(|point| {
                let (begin, end) = (point * of.similarity.len() / points, (point + 1) * of.similarity.len() / points);
                let part = &of.similarity[begin..end];
                let mean = part.iter().map(|&s| f64::from(s)).sum::<f64>() / part.len() as f64;
                ((begin + end - 1) as f64 / 2.0, mean)
            });
            line(color).with_data(means).into()
        });
        let plots: Vec<Plot> = lines.collect();
        let layout = layout(&plots, "mini-batch", "in-batch similarity");
        self.draw(plots, layout)
    }

    /// Points, a line through some places in the order of their x, and a bound for y.
    pub fn frontier(
        &mut self,
        points: &[Point],
        along: &[(f64, f64)],
        bound: f64,
        (x, y): (&str, &str),
    ) -> PreEscaped<String> {
        let scatter = |is_wanted: fn(&Point) -> bool, color: &str, size: f64| {
            let wanted: Vec<_> = points.iter().filter(|point| is_wanted(point)).collect();
            let plot = ScatterPlot::new().with_color(color).with_size(size);
            plot.with_data(wanted.iter().map(|point| (point.x, point.y))).with_labels(wanted.iter().map(|of| of.label))
        };
        let line = LinePlot::new().with_color("var(--soft)").with_stroke_width(1.0).with_data(along.iter().copied());
        let plots: Vec<Plot> = vec![
            line.into(),
            scatter(|of| of.label.is_empty() && of.is_refused, "var(--soft)", 4.0).into(),
            scatter(|of| of.label.is_empty() && !of.is_refused, COLORS[2], 4.0).into(),
            scatter(|of| !of.label.is_empty(), COLORS[0], 7.0).into(),
        ];
        let bound = ReferenceLine::horizontal(bound).with_color("var(--accent)");
        let layout = layout(&plots, x, y).with_height(360.0).with_reference_line(bound);
        self.draw(plots, layout)
    }

    /// How many samples have which in-degree.
    pub fn in_degrees(&mut self, graph: &GraphFacts) -> PreEscaped<String> {
        let name = |bin: usize| match bin {
            0 | 1 => bin.to_string(),
            _ => format!("{}–{}", 1 << (bin - 1), (1 << bin) - 1),
        };
        let bars = graph.in_degrees.iter().enumerate().map(|(bin, &samples)| (name(bin), samples as f64));
        let plots: Vec<Plot> = vec![BarPlot::new().with_bars(bars).with_color(COLORS[2]).into()];
        let layout = layout(&plots, "in-degree: neighbor of so many", "samples");
        self.draw(plots, layout)
    }

    /// A small graph, by a force layout.
    pub fn graph(&mut self, nodes: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> PreEscaped<String> {
        let mut network = NetworkPlot::new().with_layout(NetworkLayout::KamadaKawai).with_node_radius(3.0);
        for node in 0..nodes {
            network = network.with_node_color(node.to_string(), COLORS[2]);
        }
        for (from, to) in edges {
            network = network.with_edge(from.to_string(), to.to_string(), 1.0);
        }
        let plots: Vec<Plot> = vec![network.into()];
        let layout = Layout::auto_from_plots(&plots).with_theme(theme()).with_width(160.0).with_height(120.0);
        self.draw(plots, layout)
    }

    fn draw(&mut self, plots: Vec<Plot>, layout: Layout) -> PreEscaped<String> {
        self.drawn += 1;
        let svg = kuva::render_to_svg(plots, layout);
        let svg = svg.replace("kuva-clip", &format!("plot-{}-clip", self.drawn));
        PreEscaped(scalable(&svg))
    }
}

/// A plot that is as wide as its place: with a view box in place of a fixed size.
fn scalable(svg: &str) -> String {
    let number = |name: &str| -> Option<&str> { svg.split_once(&format!(" {name}=\""))?.1.split('"').next() };
    match (number("width"), number("height")) {
        (Some(width), Some(height)) => {
            let size = format!(" width=\"{width}\" height=\"{height}\"");
            svg.replacen(&size, &format!(" viewBox=\"0 0 {width} {height}\" role=\"img\""), 1)
        }
        _ => svg.to_owned(),
    }
}

fn line(color: &str) -> LinePlot {
    LinePlot::new().with_color(color).with_stroke_width(2.0)
}

fn layout(plots: &[Plot], x: &str, y: &str) -> Layout {
    Layout::auto_from_plots(plots)
        .with_theme(theme())
        .with_width(720.0)
        .with_height(280.0)
        .with_x_label(x)
        .with_y_label(y)
}

/// The colors of the page, which differ in the dark.
fn theme() -> Theme {
    let text = || "currentColor".to_owned();
    Theme {
        background: "none".into(),
        axis_color: text(),
        tick_color: text(),
        text_color: text(),
        grid_color: "var(--line)".into(),
        legend_bg: "none".into(),
        legend_border: "none".into(),
        font_family: Some("inherit".into()),
        ..Theme::light()
    }
}

/// The colors of the run, of nearest first and of uniform mini-batches, which most people can tell apart.
pub(in crate::cli) const COLORS: [&str; 3] = ["#d95f02", "#1b9e77", "#7570b3"];

/// How many points a line has at most.
const POINTS: usize = 200;
