/* insertion.c - insertion language models (ILM, "Insertion Language Models: Sequence Generation with
 * Arbitrary-Position Insertions", arXiv 2505.05755; tensor names and config keys of the released
 * code).
 *
 *   x = table[id]
 *   per layer:  x += out( attention( rope( qkv( norm1 x ) ) ) )       LayerNorm with bias
 *               x += down( act( up( norm2 x ) ) ),                    with biases; relu or gelu
 *   logits of row i = head( norm x )                                  "insert this right of row i"
 *   classes = class_head( z + mlp.2( tanh( mlp.0( LayerNorm z ) ) ) ) of row 0 ([CLS]), z = its x
 *
 * The sequence holds the tokens that exist and no others: rows are in reading order at positions
 * 0, 1, 2, ..., and every row sees all.
 *
 * config.json:
 *   architectures   ["RotaryTransformerILMModel"], or that name followed by
 *                   "WithStoppingClassification" or "WithLengthClassification"
 *   head            "none", "stopping" or "length": the classifier; default by architecture
 *   d_model, num_layers, nhead, dim_feedforward, num_embeddings (rows of table and head)
 *   activation      "relu" (default) or "gelu" (its tanh form)
 *   layer_norm_eps  1e-5
 *   rotary_emb_dim  channels of a head that rotate, the first ones; 64
 *   max_length      tokens of a sequence at most, [CLS] and [BOS] counted
 *   final_layer_without_normalization   true: the head reads x itself; default: true without a
 *                   classifier, else false (the released classes)
 *   num_classes     of the length head; stopping has 2. Class 0: nothing is missing
 *   cls_token_id, bos_token_id          must be there
 *   eos_token_id, pad_token_id, mask_token_id, unk_token_id    may be missing
 *   tokens_to_suppress   ids never inserted; default: cls, bos, eos, pad and mask (without a
 *                   classifier not pad) */
