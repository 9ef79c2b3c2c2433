SmiDrawer.apply({
  width: 180,
  height: 140,
  themes: {
    page: {
      FOREGROUND: "currentColor", BACKGROUND: "transparent", C: "currentColor", H: "currentColor",
      O: "#e74c3c", N: "#3498db", F: "#27ae60", CL: "#16a085", BR: "#d35400", I: "#8e44ad",
      P: "#d35400", S: "#c79a00", B: "#e67e22", SI: "#e67e22",
    },
  },
}, {}, "data-smiles", "page");
