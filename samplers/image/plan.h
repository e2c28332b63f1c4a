/* plan.h - what the planners of images share. */
#ifndef TT_IMAGE_PLAN_H
#define TT_IMAGE_PLAN_H

#include "samplers/image.h"

/* Guidance of the present step: cfg_scale under its ramp, (0, 1/T, 2/T, ...) of it when linear. */
void tt_image_guide(const tt_image_seq *q, tt_image_plan *plan);
/* Asks for a slot's token, drawn at this temperature. Slots are to be asked for in ascending
 * order. */
void tt_image_ask(const tt_image_seq *q, tt_image_plan *plan, int32_t slot, double temperature);
/* Commits the drawn token of the plan's i-th want. */
void tt_image_put(tt_image_seq *q, const tt_image_plan *plan, const tt_row_stats *stats, int32_t i);
/* Standard Gumbel noise of a slot in this step, apart from that of its draw. */
float tt_image_noise(const tt_image_seq *q, int32_t slot);

#endif
