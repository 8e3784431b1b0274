// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Sensors that follow the load, and attributes of the driver's own.
 *
 * Energy is exact: 30 W while awake and 70 W more for each occupied ring. The rest is a model on top of it: power
 * and busyness are means since the reading before (at least 50 ms), temperature goes to 40 C plus 0.2 C a watt with a
 * time constant of 4 s, the fan follows it. tg->sensors remembers; the model moves when it is read.
 */
#include <linux/hwmon.h>
#include <linux/hwmon-sysfs.h>
#include <linux/math64.h>
#include <linux/pci.h>
#include <linux/sysfs.h>

#include "tg.h"

#define TG_IDLE_UW	30000000ull
#define TG_RING_UW	70000000ull
#define TG_FAN_MAX_RPM	3300

static u64 tg_energy_uj(u64 awake_ns, u64 busy_ns)
{
	return mul_u64_u64_div_u64(awake_ns, TG_IDLE_UW, NSEC_PER_SEC) +
	       mul_u64_u64_div_u64(busy_ns, TG_RING_UW, NSEC_PER_SEC);
}

static long tg_settled_mdeg(u64 power_uw)
{
	return 40000 + div_u64(power_uw, 5000);
}

/* sensors.lock is held. */
static void tg_sensors_move(struct tg_device *tg)
{
	struct tg_sensors *s = &tg->sensors;
	ktime_t now = ktime_get();
	s64 passed = ktime_to_ns(ktime_sub(now, s->at));
	s64 weight = min_t(s64, passed, 4ll * NSEC_PER_SEC);
	u64 busy, awake, energy;

	if (passed < 50 * NSEC_PER_MSEC)
		return;
	busy = tg_busy(tg);
	awake = tg_awake_ns(tg);
	energy = tg_energy_uj(awake, busy);
	s->busy_permille = min_t(u64, div64_u64((busy - s->busy_ns) * 1000, passed * TG_MAX_RINGS), 1000);
	s->power_uw = mul_u64_u64_div_u64(energy - s->energy_uj, NSEC_PER_SEC, passed);
	s->temp_mdeg += div64_s64((tg_settled_mdeg(s->power_uw) - s->temp_mdeg) * weight,
				  4ll * NSEC_PER_SEC);
	s->at = now;
	s->busy_ns = busy;
	s->energy_uj = energy;
	s->awake_ns = awake;
}

static long tg_fan_rpm(const struct tg_sensors *s)
{
	return clamp_t(long, 600 + (s->temp_mdeg - 40000) / 18, 600, TG_FAN_MAX_RPM);
}

enum tg_value {
	TG_TEMP_EDGE,
	TG_TEMP_JUNCTION,
	TG_TEMP_CRIT,
	TG_POWER,
	TG_POWER_CAP,
	TG_ENERGY,
	TG_FAN,
	TG_FAN_MAX,
	TG_PWM,
	TG_IN,
};

static const struct tg_sensor {
	const char *name;	/* of the file: also that of its fault */
	enum hwmon_sensor_types type;
	u32 attr;
	int channel;
	enum tg_value value;
} tg_sensors[] = {
	{ "temp1_input", hwmon_temp, hwmon_temp_input, 0, TG_TEMP_EDGE },
	{ "temp2_input", hwmon_temp, hwmon_temp_input, 1, TG_TEMP_JUNCTION },
	{ "temp1_crit", hwmon_temp, hwmon_temp_crit, 0, TG_TEMP_CRIT },
	{ "power1_average", hwmon_power, hwmon_power_average, 0, TG_POWER },
	{ "power1_cap", hwmon_power, hwmon_power_cap, 0, TG_POWER_CAP },
	{ "energy1_input", hwmon_energy, hwmon_energy_input, 0, TG_ENERGY },
	{ "fan1_input", hwmon_fan, hwmon_fan_input, 0, TG_FAN },
	{ "fan1_max", hwmon_fan, hwmon_fan_max, 0, TG_FAN_MAX },
	{ "pwm1", hwmon_pwm, hwmon_pwm_input, 0, TG_PWM },
	{ "in0_input", hwmon_in, hwmon_in_input, 0, TG_IN },
};

static const struct tg_sensor *tg_sensor_find(enum hwmon_sensor_types type, u32 attr, int channel)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(tg_sensors); i++)
		if (tg_sensors[i].type == type && tg_sensors[i].attr == attr &&
		    tg_sensors[i].channel == channel)
			return &tg_sensors[i];
	return NULL;
}

/* Wakes the device, meets the fault of that name, lets `value` look at the sensors. */
static int tg_sensor_get(struct tg_device *tg, enum tg_access by, const char *name,
			 long (*value)(struct tg_device *tg, unsigned int which), unsigned int which,
			 long *val)
{
	int ret = tg_pm_get_for_read(tg, by);

	if (ret)
		return ret;
	ret = tg_fault_point(tg, name);
	if (!ret) {
		mutex_lock(&tg->sensors.lock);
		tg_sensors_move(tg);
		*val = value(tg, which);
		mutex_unlock(&tg->sensors.lock);
	}
	tg_pm_put(tg);
	return ret;
}

static long tg_hwmon_value(struct tg_device *tg, unsigned int which)
{
	const struct tg_sensors *s = &tg->sensors;

	switch ((enum tg_value)which) {
	case TG_TEMP_EDGE:
		return s->temp_mdeg;
	case TG_TEMP_JUNCTION:
		return s->temp_mdeg + div_u64(s->power_uw, 20000);
	case TG_TEMP_CRIT:
		return 110000;
	case TG_POWER:
		return s->power_uw;
	case TG_POWER_CAP:
		return s->power_cap_uw;
	case TG_ENERGY:
		return tg_energy_uj(tg_awake_ns(tg), tg_busy(tg));
	case TG_FAN:
		return tg_fan_rpm(s);
	case TG_FAN_MAX:
		return TG_FAN_MAX_RPM;
	case TG_PWM:
		return tg_fan_rpm(s) * 255 / TG_FAN_MAX_RPM;
	case TG_IN:
		return 700 + s->busy_permille / 4;
	}
	return 0;
}

static int tg_hwmon_read(struct device *dev, enum hwmon_sensor_types type, u32 attr, int channel, long *val)
{
	const struct tg_sensor *sensor = tg_sensor_find(type, attr, channel);

	if (!sensor)
		return -EOPNOTSUPP;
	return tg_sensor_get(dev_get_drvdata(dev), TG_ACCESS_HWMON, sensor->name, tg_hwmon_value,
			     sensor->value, val);
}

static int tg_hwmon_write(struct device *dev, enum hwmon_sensor_types type, u32 attr, int channel, long val)
{
	struct tg_device *tg = dev_get_drvdata(dev);

	if (type != hwmon_power || attr != hwmon_power_cap)
		return -EOPNOTSUPP;
	mutex_lock(&tg->sensors.lock);
	tg->sensors.power_cap_uw = clamp(val, 50000000L, 310000000L);
	mutex_unlock(&tg->sensors.lock);
	return 0;
}

static int tg_hwmon_read_string(struct device *dev, enum hwmon_sensor_types type, u32 attr, int channel,
				const char **str)
{
	static const char * const temps[] = { "edge", "junction" };

	switch (type) {
	case hwmon_temp:
		*str = temps[channel];
		return 0;
	case hwmon_power:
	case hwmon_energy:
		*str = "board";
		return 0;
	case hwmon_in:
		*str = "vddgfx";
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static umode_t tg_hwmon_is_visible(const void *data, enum hwmon_sensor_types type, u32 attr, int channel)
{
	return type == hwmon_power && attr == hwmon_power_cap ? 0644 : 0444;
}

static const struct hwmon_ops tg_hwmon_ops = {
	.is_visible = tg_hwmon_is_visible,
	.read = tg_hwmon_read,
	.read_string = tg_hwmon_read_string,
	.write = tg_hwmon_write,
};

static const struct hwmon_channel_info * const tg_hwmon_channels[] = {
	HWMON_CHANNEL_INFO(temp, HWMON_T_INPUT | HWMON_T_CRIT | HWMON_T_LABEL, HWMON_T_INPUT | HWMON_T_LABEL),
	HWMON_CHANNEL_INFO(power, HWMON_P_AVERAGE | HWMON_P_CAP | HWMON_P_LABEL),
	HWMON_CHANNEL_INFO(energy, HWMON_E_INPUT | HWMON_E_LABEL),
	HWMON_CHANNEL_INFO(fan, HWMON_F_INPUT | HWMON_F_MAX),
	HWMON_CHANNEL_INFO(pwm, HWMON_PWM_INPUT),
	HWMON_CHANNEL_INFO(in, HWMON_I_INPUT | HWMON_I_LABEL),
	NULL
};

static const struct hwmon_chip_info tg_hwmon_chip = {
	.ops = &tg_hwmon_ops,
	.info = tg_hwmon_channels,
};

/* hwmon has no clocks; drivers that have some add the files themselves, and the core's lock does not cover them. */
static long tg_clock_hz(struct tg_device *tg, unsigned int which)
{
	return 300000000L + 1700000L * tg->sensors.busy_permille;
}

static ssize_t freq1_input_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	long hz;
	int ret = tg_sensor_get(dev_get_drvdata(dev), TG_ACCESS_HWMON, attr->attr.name, tg_clock_hz, 0, &hz);

	return ret ? ret : sysfs_emit(buf, "%ld\n", hz);
}
static DEVICE_ATTR_RO(freq1_input);

static ssize_t freq1_label_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "sclk\n");
}
static DEVICE_ATTR_RO(freq1_label);

static struct attribute *tg_hwmon_attrs[] = {
	&dev_attr_freq1_input.attr,
	&dev_attr_freq1_label.attr,
	NULL
};
ATTRIBUTE_GROUPS(tg_hwmon);

/* Attributes of the driver's own, in the folder of the device. */
enum tg_own {
	TG_OWN_BUSY,
	TG_OWN_CLOCK,
	TG_OWN_VRAM,
};

static long tg_own_value(struct tg_device *tg, unsigned int which)
{
	switch ((enum tg_own)which) {
	case TG_OWN_BUSY:
		return tg->sensors.busy_permille / 10;
	case TG_OWN_CLOCK:
		return tg_clock_hz(tg, 0);
	case TG_OWN_VRAM:
		return atomic64_read(&tg->vram_used);
	}
	return 0;
}

static ssize_t tg_own_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct dev_ext_attribute *own = container_of(attr, struct dev_ext_attribute, attr);
	long value;
	int ret = tg_sensor_get(dev_get_drvdata(dev), TG_ACCESS_SYSFS, attr->attr.name, tg_own_value,
				(unsigned long)own->var, &value);

	return ret ? ret : sysfs_emit(buf, "%ld\n", value);
}

#define TG_OWN_ATTR(_name, _which)						\
static struct dev_ext_attribute tg_attr_##_name = {				\
	.attr = __ATTR(_name, 0444, tg_own_show, NULL),				\
	.var = (void *)_which,							\
}

TG_OWN_ATTR(busy_percent, TG_OWN_BUSY);
TG_OWN_ATTR(clock_hz, TG_OWN_CLOCK);
TG_OWN_ATTR(vram_used, TG_OWN_VRAM);

static struct attribute *tg_own_attrs[] = {
	&tg_attr_busy_percent.attr.attr,
	&tg_attr_clock_hz.attr.attr,
	&tg_attr_vram_used.attr.attr,
	NULL
};

static const struct attribute_group tg_own_group = {
	.attrs = tg_own_attrs,
};

int tg_hwmon_init(struct tg_device *tg)
{
	int ret;

	mutex_init(&tg->sensors.lock);
	tg->sensors.at = ktime_get();
	tg->sensors.power_uw = TG_IDLE_UW;
	tg->sensors.temp_mdeg = tg_settled_mdeg(TG_IDLE_UW);
	tg->sensors.power_cap_uw = 310000000L;

	tg->hwmon = hwmon_device_register_with_info(tg->dev, TG_NAME, tg, &tg_hwmon_chip, tg_hwmon_groups);
	if (IS_ERR(tg->hwmon))
		return PTR_ERR(tg->hwmon);
	ret = sysfs_create_group(&tg->dev->kobj, &tg_own_group);
	if (ret)
		hwmon_device_unregister(tg->hwmon);
	return ret;
}

/* Waits for readers, whom tg_fault_fini() has let go. */
void tg_hwmon_fini(struct tg_device *tg)
{
	sysfs_remove_group(&tg->dev->kobj, &tg_own_group);
	hwmon_device_unregister(tg->hwmon);
}
