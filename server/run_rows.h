/* run_rows.h - where columns lie: of the canvas, of the twin of guidance, and in a pass.
 *
 * A plan feeds rows of the canvas: columns row_begin to row_end, or those listed, or tokens of its
 * own. With guidance the twin is fed too, the same columns after another prompt; then shadows,
 * masks behind the canvas. In a pass a run's rows lie in that order, from run->row on. */
#ifndef TT_RUN_ROWS_H
#define TT_RUN_ROWS_H

#include "server/run.h"

/* Rows of the canvas that the plan feeds, the column of the i-th of them, and which of them a
 * column is. */
int64_t tt_run_real_rows(const tt_plan *p);
int32_t tt_run_fed_column(const tt_plan *p, int64_t i);
int64_t tt_run_place_of(const tt_plan *p, int32_t column);

/* Where a column lies in the twin. Without a prompt of its own, its given columns are masked. */
int32_t tt_run_twin_column(const tt_run *r, int32_t column);
/* Of a list of columns fed, so many at its start lie before all that the twin has. */
int64_t tt_run_twin_leaves_out(const tt_run *r);
int64_t tt_run_twin_rows(const tt_run *r);
/* The store of the plan's rows, or of the twin's. */
tt_kv **tt_run_store(tt_run *r, bool twin);

bool tt_run_is_shadow(const tt_run *r, const tt_ask *a);
/* Where an asked column's distribution comes from: its own row, or the one before it. Column 0 of
 * a shifted model has no row before it and takes its own. */
int32_t tt_run_source_column(const tt_run *r, const tt_ask *a);
/* The row of the pass that holds it; and the twin's. */
int64_t tt_run_row_of(const tt_run *r, const tt_ask *a);
int64_t tt_run_twin_row_of(const tt_run *r, const tt_ask *a);

#endif
