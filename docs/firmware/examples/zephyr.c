/* Zephyr. CONFIG_GPIO=y, and in the board's overlay:
 *     / { zephyr,user { jm-gpios = <&gpio1 1 GPIO_ACTIVE_HIGH>, <&gpio1 2 GPIO_ACTIVE_HIGH>; }; }; */
#include <zephyr/drivers/gpio.h>
#include <zephyr/kernel.h>

#define JM_BACKEND_ZEPHYR
#define JM_PINS                                              \
    GPIO_DT_SPEC_GET_BY_IDX(DT_PATH(zephyr_user), jm_gpios, 0), \
    GPIO_DT_SPEC_GET_BY_IDX(DT_PATH(zephyr_user), jm_gpios, 1)
#include "joulemeter_trigger.h"

#include "model.h" /* yours: model_preprocess(), model_invoke() */

int main(void)
{
    if (jm_init() != 0) {
        return 1;
    }
    jm_empty_pairs(10);
    for (;;) {
        jm_phase_begin(1);
        model_preprocess();
        jm_phase_end(1);

        jm_inference_begin();
        model_invoke();
        jm_inference_end();
        k_msleep(100);
    }
}
