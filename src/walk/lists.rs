/// Lists of numbers, one after another in an array.
#[derive(Debug)]
pub(in crate::walk) struct Lists {
    /// Where in `items` each list begins, and where the last one ends.
    starts: Vec<usize>,
    items: Vec<u32>,
}

impl Lists {
    /// Collects pairs of list and item into `count` lists. `pairs` is called twice and must give the same.
    pub fn new<P: Iterator<Item = (usize, u32)>>(count: usize, pairs: impl Fn() -> P) -> Self {
        // Counted two places further on, the starts come out right once the lists are filled.
        let mut starts = vec![0; count + 2];
        pairs().for_each(|(list, _)| starts[list + 2] += 1);
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut items = vec![0; sum];
        for (list, item) in pairs() {
            let next = &mut starts[list + 1];
            items[*next] = item;
            *next += 1;
        }
        starts.pop();
        Self { starts, items }
    }

    /// How many lists there are.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn get(&self, list: usize) -> &[u32] {
        &self.items[self.starts[list]..self.starts[list + 1]]
    }
}
