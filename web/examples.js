// examples.js - prompts that show what a model does well, by model id. Every one of them is in the
// model's own training format; see models/demo/*/README.md.

export const examples = {
};
