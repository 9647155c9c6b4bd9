/* STM32 with ST's HAL. CubeMX has made PE7 and PE8 push-pull outputs, very high speed, no pull.
 * For the shortest edge write JM_BACKEND_STM32_BSRR instead: one store to the port's register. */
#include "main.h"

#ifndef JM_BACKEND_STM32_BSRR
#define JM_BACKEND_STM32_HAL
#endif
#define JM_PINS {GPIOE, GPIO_PIN_7}, {GPIOE, GPIO_PIN_8}
#include "joulemeter_trigger.h"

#include "model.h" /* yours: model_preprocess(), model_invoke() */

int main(void)
{
    HAL_Init();
    SystemClock_Config();
    MX_GPIO_Init();
    jm_init();
    jm_empty_pairs(10);
    for (;;) {
        jm_phase_begin(1);
        model_preprocess();
        jm_phase_end(1);

        jm_inference_begin();
        model_invoke();
        jm_inference_end();
        HAL_Delay(100);
    }
}
