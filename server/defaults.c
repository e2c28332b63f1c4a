/* defaults.c - see defaults.h. */
#include "server/defaults.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/log.h"

static tt_status read_default(tt_params *d, const tt_param *p, tt_config *c, tt_err *e)
{
    double now = tt_params_get(d, p);
    if (p->type == TT_PARAM_CHOICE) {
        const char *text = tt_config_text(c, p->name, NULL);
        return text ? tt_params_set_text(d, p, text, e) : TT_OK;
    }
    if (p->type == TT_PARAM_BOOL)
        return tt_params_set(d, p, tt_config_bool(c, p->name, now != 0), e);
    return tt_params_set(d, p, tt_config_float(c, p->name, now, p->min, p->max), e);
}

static tt_status read_sampler(const tt_sampler **sampler, tt_config *c, tt_err *e)
{
    const char *name = tt_config_text(c, "sampler", (*sampler)->name);
    const tt_sampler *found = tt_sampler_find(name);
    if (!found)
        return tt_fail(e, TT_EUNSUP, "sampler '%.40s' is not known", name);
    *sampler = found;
    return TT_OK;
}

/* Keys that say nothing about sampling are reported once, but accepted. */
static tt_status check_unread(tt_config *c, const char *folder, tt_err *e)
{
    static const char *const other[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                        "transformers_version", "_from_model_config", "do_sample",
                                        "mask_token_id", NULL};
    tt_config_ignore(c, other);
    tt_buf unread = {0};
    tt_status s = tt_config_status(c, e);
    if (!s && tt_config_unread(c, &unread))
        tt_log(TT_LOG_WARN, "config", "folder=%s file=generation_config.json unread=\"%s\"", folder,
               tt_buf_text(&unread));
    tt_buf_free(&unread);
    return s;
}

static void of_family(const tt_model_info *info, const tt_sampler **sampler, tt_params *out)
{
    out->block_length = info->block_length;
    out->temperature = info->temperature;
    if (info->recurrence)
        out->recurrence = info->recurrence;
    if (info->stopping_threshold > 0)
        out->stopping_threshold = info->stopping_threshold;
    *sampler = tt_sampler_find(info->sampler ? info->sampler : "low_confidence");
}

tt_status tt_defaults_read(const char *folder, const tt_model_info *info,
                           const tt_sampler **sampler, tt_params *out, tt_err *e)
{
    char path[4096];
    tt_config *c;
    tt_params_default(out);
    *sampler = NULL;
    if (info)
        of_family(info, sampler, out);
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    if (access(path, F_OK))
        return TT_OK;
    tt_status s = tt_config_open_file(&c, folder, "generation_config.json", e);
    if (s)
        return s;
    s = info ? read_sampler(sampler, c, e) : TT_OK;
    size_t n;
    const tt_param *p = tt_param_all(&n);
    for (size_t i = 0; i < n && !s; i++)
        s = read_default(out, &p[i], c, e);
    memset(out->given, 0, sizeof out->given);
    if (!s)
        s = check_unread(c, folder, e);
    tt_config_close(c);
    return s ? tt_context(e, s, "generation_config.json of '%.80s'", folder) : TT_OK;
}
